"""Containers go on while their host is hardened; what they publish is reached where declared, and nowhere else."""

from __future__ import annotations

import re

import pytest
from knocking import FAMILIES, address_of, knock, peer_of
from plays import all_hosts
from testinfra.host import Host

# What `docker run --publish` has opened on Docker's own bridge, on a network as compose makes them, and on one with
# IPv6. 8095 is declared for networks in which nobody is; 8090 is published on the loopback address.
PUBLISHED = {
    8080: "silent",
    8081: "open",
    8082: "silent",
    8083: "open",
    8084: "silent",
    8085: "open",
    8090: "silent",
    8095: "silent",
}
PAGE = "It answers"
BRIDGES = "table ip bridges-of-nftables"


def assert_as_declared(host: Host) -> None:
    for version in FAMILIES:
        answers = knock(host, version, tuple(PUBLISHED))
        assert dict(zip(PUBLISHED, answers, strict=True)) == PUBLISHED, version


def address_in(host: Host, container: str) -> str:
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return host.check_output("docker inspect --format %s %s", template, container)


def page(host: Host, container: str, where: str) -> str:
    """What a container reads there; "" where it gets no answer."""
    url = f"http://{where}/index.html"
    return str(host.run("docker exec %s /busybox timeout 5 /busybox wget -q -O - %s", container, url).stdout.strip())


def assert_containers_talk(host: Host) -> None:
    assert page(host, "second", f"{address_in(host, 'first')}:80") == PAGE
    assert page(host, "alone", f"{address_of(peer_of(host), 4)}:8081") == PAGE
    assert page(host, "first", f"{address_of(peer_of(host), 4)}:8083") == PAGE
    assert page(host, "sixth", f"[{address_of(peer_of(host), 6)}]:8085") == PAGE
    # Docker itself keeps its networks apart.
    assert page(host, "alone", f"{address_in(host, 'first')}:80") == ""
    # And the host reaches them, by the port and directly.
    for where in ("127.0.0.1:8080", "127.0.0.1:8090", f"{address_in(host, 'first')}:80"):
        assert host.run("timeout 5 busybox wget -q -O - http://%s/index.html", where).stdout.strip() == PAGE, where


def started(host: Host) -> str:
    """Each container and since when it runs."""
    listed = "docker ps --quiet | xargs docker inspect --format '{{.Name}} {{.State.StartedAt}}' | sort"
    return str(host.check_output(listed))


@pytest.fixture(scope="session")
def converged() -> dict[str, tuple[str, list[str]]]:
    """What all hosts say before the first test disturbs one: since when their containers run, and what `asking` got."""
    return {name: (started(one), one.check_output("docker logs asking").split()) for name, one in all_hosts().items()}


def test_containers_have_gone_on_through_every_step(host: Host, converged: dict[str, tuple[str, list[str]]]) -> None:
    """They were there before the first role, and one of them has asked the other host for a page all the time."""
    since, answers = converged[host.backend.host]
    assert since == host.file("/srv/started").content_string.strip()
    assert len(answers) > 50
    assert set(answers) == {"answered"}


def test_an_updated_library_leaves_containers_alone(host: Host) -> None:
    """needrestart restarts what still uses the former one; Docker would take its containers along."""
    before = started(host)
    told = host.check_output("DEBIAN_FRONTEND=noninteractive apt-get install --reinstall --yes libc6 2>&1")
    assert re.search(r"systemctl restart .*cron\.service", told), told
    assert "systemctl restart docker.service" in told.partition("deferred")[2], told
    assert started(host) == before


def test_every_port_is_published(host: Host) -> None:
    shown = host.check_output("docker ps --format '{{.Ports}}'")
    assert not [port for port in PUBLISHED if f":{port}->80/tcp" not in shown], shown


def test_only_declared_ports_are_reached(host: Host) -> None:
    assert_as_declared(host)


def test_containers_reach_out_and_each_other(host: Host) -> None:
    assert_containers_talk(host)


@pytest.mark.parametrize("action", ["reload", "restart"])
def test_the_firewall_does_not_touch_docker(host: Host, action: str) -> None:
    """Containers that were there before it go on, and Docker's rules are the same."""
    before = started(host), host.check_output("iptables-save | grep -v '^[#:]'")
    host.check_output("systemctl %s production-firewall.service", action)
    assert (started(host), host.check_output("iptables-save | grep -v '^[#:]'")) == before
    assert_as_declared(host)
    assert_containers_talk(host)


def test_docker_does_not_open_the_firewall(host: Host) -> None:
    host.check_output("systemctl restart docker.service")
    host.check_output("timeout 30 sh -c 'until [ $(docker ps --quiet | wc -l) = 5 ]; do sleep 0.2; done'")
    assert_as_declared(host)
    assert_containers_talk(host)


def test_a_container_that_comes_later_opens_nothing(host: Host) -> None:
    run = "docker run --detach --rm --publish %s:80 small /busybox httpd -f -p 80 -h /"
    names = [host.check_output(run, port) for port in ("8086", "8087")]
    try:
        for version in FAMILIES:
            assert knock(host, version, (8086, 8087)) == ["silent", "open"], version
        assert page(host, names[0], f"{address_of(peer_of(host), 4)}:8081") == PAGE
    finally:
        host.check_output("docker rm --force %s", " ".join(names).split()[0])
        host.check_output("docker rm --force %s", " ".join(names).split()[1])


def test_the_rules_hold_for_dockers_nftables_backend_too(host: Host) -> None:
    """Docker 29 keeps its rules in nftables tables of its own: such a table, that lets everything through."""
    inside = address_in(host, "alone")
    rules = (
        f"{BRIDGES} {{ "
        f"chain nat {{ type nat hook prerouting priority dstnat - 1; "
        f"tcp dport {{ 8086, 8087 }} fib daddr type local dnat to {inside}:80; }}; "
        "chain forward { type filter hook forward priority filter; policy accept; accept; }; }"
    )
    host.check_output("nft %s", rules)
    host.check_output("iptables --insert DOCKER-USER --jump ACCEPT")
    try:
        assert knock(host, 4, (8086, 8087)) == ["silent", "open"]
    finally:
        host.check_output("iptables --delete DOCKER-USER --jump ACCEPT")
        host.check_output("nft delete %s", BRIDGES)


def test_without_the_firewall_all_of_them_would_be_open(host: Host) -> None:
    """That is, the tests above see the firewall and nothing else."""
    host.check_output("systemctl stop production-firewall.service")
    try:
        answers = dict(zip(PUBLISHED, knock(host, 4, tuple(PUBLISHED)), strict=True))
    finally:
        host.check_output("systemctl start production-firewall.service")
    assert answers == {port: "refused" if port == 8090 else "open" for port in PUBLISHED}
    assert_as_declared(host)


def test_names_of_protocols_are_no_change(host: Host) -> None:
    """They are in a file that comes with some later package, and goes with it."""
    names = "/etc/protocols"
    came = not host.file(names).exists
    host.check_output("printf 'tcp 6 TCP\nudp 17 UDP\n' > %s" if came else "mv %s /etc/protocols.away", names)
    try:
        shown = host.run("production-firewall check")
    finally:
        host.check_output("rm %s" if came else "mv /etc/protocols.away %s", names)
    assert shown.rc == 0, shown.stdout
    assert "meta l4proto" in shown.stdout
