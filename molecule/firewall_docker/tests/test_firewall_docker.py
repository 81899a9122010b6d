"""What containers publish is reached from another host where it was declared, and nowhere else."""

from __future__ import annotations

import pytest
from knocking import FAMILIES, address_of, knock, peer_of
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


def test_every_port_is_published(host: Host) -> None:
    shown = host.check_output("docker ps --format '{{.Ports}}'")
    assert not [port for port in PUBLISHED if f":{port}->80/tcp" not in shown], shown


def test_only_declared_ports_are_reached(host: Host) -> None:
    assert_as_declared(host)


def test_containers_reach_out_and_each_other(host: Host) -> None:
    assert_containers_talk(host)


def started(host: Host) -> str:
    return str(host.check_output("docker ps --quiet | xargs docker inspect --format '{{.State.StartedAt}}'"))


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
    host.check_output("timeout 30 sh -c 'until [ $(docker ps --quiet | wc -l) = 4 ]; do sleep 0.2; done'")
    assert_as_declared(host)
    assert_containers_talk(host)


def test_a_container_that_comes_later_opens_nothing(host: Host) -> None:
    run = "docker run --detach --rm --publish %s:80 small /busybox httpd -f -p 80 -h /"
    names = [host.check_output(run, port) for port in ("8086", "8087")]
    try:
        for version in FAMILIES:
            assert knock(host, version, (8086, 8087)) == ["silent", "open"], version
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
