# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an incident asks for, on the hosts of the other runbooks: a site shut, a host explained, a disk freed."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_support import Fleet, refused
from hosts_support import Host, Played

SHOP = "shop.fushuma.com"
# Sealed values of settings; none of them may ever be seen.
CANARY = "canary-Zk7vQ2mXb9Lr4TnY"
SETTINGS: dict[str, Any] = {
    "docker_compose": False,
    "nginx_sites": [
        {
            "name": SHOP,
            "aliases": [f"www.{SHOP}"],
            "root": "/srv/shop",
            "certificate": {"source": "selfsigned"},
            "csp": {"report": True},
            "security_txt": {"contact": ["mailto:security@fushuma.com"], "expires": "2027-09-01T00:00:00Z"},
            "locations": [{"path": "/figures/", "users": {"operator": CANARY}}],
        },
        {"name": "www.fushuma.com", "root": "/srv/shop", "certificate": {"source": "selfsigned"}},
    ],
}
IMAGE = """
mkdir -p /srv/image && cp /usr/bin/busybox /srv/image
tar --create --directory=/srv/image . | docker import - small
"""


@pytest.fixture(scope="module")
def edges(fleet: Fleet) -> Iterator[Fleet]:
    """The same hosts with two sites, and with Docker and an image."""
    fleet.groups = ("edge", "app")
    for one in fleet.hosts:
        one.sh("mkdir -p /srv/shop && echo 'the shop' >/srv/shop/index.html")
    fleet.site(**SETTINGS)
    for one in fleet.hosts:
        one.install("busybox-static")
        one.sh(IMAGE)
    yield fleet
    fleet.groups = ()


def run(edges: Fleet, name: str, **said: Any) -> Played:
    return edges.runbook(name, SETTINGS, **said)


# --- maintenance_mode -------------------------------------------------------------------------------------------------

# Asks one host from another one; prints the status, the headers and the body.
VISIT = """
import http.client, json, socket, ssl, sys
address, name, method, path, headers = sys.argv[1:]
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
connection = http.client.HTTPSConnection(name, timeout=10, context=tls)
connection.sock = tls.wrap_socket(socket.create_connection((address, 443), 10), server_hostname=name)
connection.request(method, path, body=b"{}" if method == "POST" else None, headers=json.loads(headers))
answer = connection.getresponse()
print(json.dumps([answer.status, dict(answer.getheaders()), answer.read().decode()]))
"""


def visit(
    edges: Fleet, path: str = "/", *, name: str = SHOP, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    """What the second host hears of the first one's site."""
    host, visitor = edges.hosts
    told = visitor.python(VISIT, host.record.address, name, method, path, json.dumps(headers or {}))
    status, found, body = json.loads(told)
    return status, found, body


def mode(edges: Fleet, state: str, **said: Any) -> Played:
    return run(edges, "maintenance_mode", site=SHOP, state=state, **said)


def test_a_site_is_shut_and_opened_again(edges: Fleet) -> None:
    open_status, usual, body = visit(edges)
    assert (open_status, body) == (200, "the shop\n")
    assert mode(edges, "on", check=True).ok().changed == 2
    assert visit(edges)[0] == 200

    assert mode(edges, "on", message="Back at <noon> for $5").ok().changed == 2
    status, headers, body = visit(edges)
    assert (status, headers["Retry-After"], headers["Cache-Control"]) == (503, "600", "no-store")
    assert "<p>Back at &#60;noon&#62; for &#36;5</p>" in body
    assert not [word for word in ("<script", "<style", "style=") if word in body]
    own = {"Last-Modified", "ETag", "Accept-Ranges", "Content-Length", "Date", "Cache-Control"}
    assert {name: value for name, value in usual.items() if name not in own}.items() <= headers.items()
    assert "Content-Security-Policy" in headers
    assert [visit(edges, "/any", method=method)[0] for method in ("POST", "PUT", "HEAD")] == [503, 503, 503]
    # What nginx answers by itself goes on, and so do other sites.
    assert visit(edges, "/.well-known/csp-report", method="POST")[0] == 204
    assert visit(edges, "/.well-known/security.txt")[0] == 200
    assert visit(edges, name="www.fushuma.com")[0] == 200
    host = edges.hosts[0]
    host.write("/var/www/acme/.well-known/acme-challenge/token", "proof")
    plain = "import urllib.request as u; r = u.Request('http://127.0.0.1/.well-known/acme-challenge/token', headers={})"
    assert host.python(f"{plain}; r.add_header('Host', '{SHOP}'); print(u.urlopen(r).read().decode())") == "proof\n"
    # Nobody changes that but who says so.
    assert mode(edges, "on", message="Back at <noon> for $5").ok().changed == 0
    assert edges.site(**SETTINGS).changed == 0
    assert visit(edges)[0] == 503

    # Some are let in, and see what visitors see when they want to.
    allow = f"['{edges.hosts[1].record.address}/32', '192.0.2.0/24']"
    assert mode(edges, "on", allow=allow, retry_after=60).ok().changed == 2
    assert visit(edges)[0] == 200
    assert visit(edges, headers={"X-Production-Visitor": "yes"})[1]["Retry-After"] == "60"

    assert mode(edges, "off").ok().changed == 2
    status, headers, _body = visit(edges, headers={"X-Production-Visitor": "yes"})
    assert (status, "Retry-After" in headers) == (200, False)
    assert host.sh("ls /etc/nginx/maintenance") == ""
    assert mode(edges, "off").ok().changed == 0


def test_a_site_that_does_not_shut_is_as_it_was(edges: Fleet) -> None:
    """Here nginx was set up by a role that knew nothing of it."""
    host = edges.hosts[0]
    host.sh(f"sed -i /maintenance/d /etc/nginx/sites/{SHOP}.conf && systemctl reload nginx.service")
    shut = mode(edges, "on")
    assert "not 503" in shut.output
    assert shut.hosts[host.name]["failed"] == 1
    assert host.sh("ls /etc/nginx/maintenance") == ""
    mode(edges, "off").ok()
    edges.site(**SETTINGS)


def test_what_cannot_be_meant_is_refused(edges: Fleet) -> None:
    wrong = run(edges, "maintenance_mode", site=f"www.{SHOP}", state="maybe", allow="['0.0.0.0/0']", retry_after="soon")
    refused(wrong, f"it is another name of {SHOP}", "Write on or off", "every address there is", "Nothing was touched.")
    refused(run(edges, "maintenance_mode", site="none", state="on"), "nginx has no such site")


# --- collect_diagnostics ----------------------------------------------------------------------------------------------

SECRETS = f"""
logger --priority user.err --tag shop 'connecting with password=canary-of-the-journal as {CANARY}'
printf '%s\\n' '2026/11/26 03:00:00 [error] 1#1: *1 upstream failed, request: "GET /?token=canary-of-a-url HTTP/2.0"' \
    'Authorization: Basic Y2FuYXJ5LW9mLWEtaGVhZGVy canary-of-a-header' 'Cookie: a=b; session=canary-of-a-cookie' \
    '-----BEGIN PRIVATE KEY-----' 'canary-of-a-key' '-----END PRIVATE KEY-----' >>/var/log/nginx/error.log
printf '%s\\n' '{{"time":"now","path":"/","status":502,"referer":"https://u:canary-of-a-referer@fushuma.com/"}}' \
    >>/var/log/nginx/access.log
docker run --detach --name shop --label production.application=shop --env API_KEY=canary-of-the-environment \
    --env DATABASE_URL=mysql://app:canary-of-a-database@db/shop --env PLAIN=canary-without-a-telling-name \
    small /busybox sh -c 'echo "begins with $API_KEY, {CANARY}"; exec /busybox sleep 100000'
mkdir -p /var/lib/fushuma-production/applications/shop
echo 'SIGNING_KEY=canary-of-a-file' >/var/lib/fushuma-production/applications/shop/1.web.env
"""
AMISS = """
systemd-run --quiet --unit=broken --property=Type=oneshot /bin/false || true
echo '# by hand' >>/etc/nginx/headers/upstream.hide
printf '#!/bin/sh\\necho what was said before\\nsleep 600 & sleep 600\\n' >/usr/local/bin/ss
chmod +x /usr/local/bin/ss
"""
AS_BEFORE = """
rm -r /usr/local/bin/ss /var/lib/fushuma-production/applications/shop
systemctl reset-failed; docker rm --force shop
"""


def texts_of(archive: Path) -> dict[str, str]:
    """The files of an archive by their names, without the folder and the ending."""
    found = {}
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            content = opened.extractfile(member)
            assert content is not None
            assert member.mode == 0o600
            found[member.name.partition("/")[2].removesuffix(".txt")] = content.read().decode()
    return found


def test_a_host_explains_itself_and_keeps_its_secrets(edges: Fleet, tmp_path: Path) -> None:
    for one in edges.hosts:
        one.sh(SECRETS)
        one.sh(AMISS)
    try:
        played = run(edges, "collect_diagnostics", to=str(tmp_path / "bundles")).ok()
        dry = run(edges, "collect_diagnostics", to=str(tmp_path / "none"), check=True).ok()
    finally:
        for one in edges.hosts:
            one.sh(AS_BEFORE)
        edges.site(**SETTINGS)
    assert "canary" not in played.output + dry.output
    assert (tmp_path / "bundles").stat().st_mode & 0o777 == 0o700
    archives = sorted((tmp_path / "bundles").iterdir())
    assert [path.name.partition("-")[0] for path in archives] == sorted(one.name for one in edges.hosts)
    for path, one in zip(archives, edges.hosts, strict=True):
        assert path.stat().st_mode & 0o777 == 0o600
        texts = texts_of(path)
        assert [name for name, text in texts.items() if "canary" in name + text] == []
        # What it is about is there all the same.
        assert "connecting with password=*** as ***" in texts["logs/errors"]
        assert "GET /?token=***" in texts["logs/var_log_nginx_error.log"]
        assert "begins with ***, ***" in texts["docker/logs/shop"]
        assert "DATABASE_URL=***" in texts["docker/inspect"]
        assert "SIGNING_KEY=***" in texts["configuration/var/lib/fushuma-production/applications/shop/1.web.env"]
        assert "server_tokens off;" in texts["configuration/etc/nginx/nginx.conf"]
        assert "what was said before" in texts["state/sockets"]
        assert "nginx.service" in texts["state/units"]
        for words in (
            "broken.service has failed",
            "/etc/nginx/headers/upstream.hide is not as nginx was activated with",
            "have a status from 500 on",
            "did not end within 10 s",
        ):
            assert words in texts["summary"]
            assert words in " ".join(played.output.split())
        assert one.sh("find /run -name 'diagnostics-*'; pgrep --full --exact 'sleep 600'", check=False) == ""
    assert not (tmp_path / "none").exists()


def test_a_time_that_systemd_does_not_know_is_refused(edges: Fleet, tmp_path: Path) -> None:
    wrong = run(edges, "collect_diagnostics", to=str(tmp_path / "none"), since="soon")
    refused(wrong, 'since is "soon": systemd knows no such time.', "Nothing was gathered.")


# --- free_disk --------------------------------------------------------------------------------------------------------

OLD = "touch --date='30 days ago'"
GOES = ("/var/cache/apt/archives/any_1_all.deb", "/var/log/any.log.1", "/var/lib/systemd/coredump/core.any.zst")
STAYS = ("/var/log/any.log", "/var/log/any.log.2.gz", "/var/log/mysql/mariadb-bin.000001", "/srv/large/file")
PLANT = f"""
mkdir -p /var/log/mysql /srv/large
for file in {" ".join(GOES + STAYS)}; do mkdir -p "$(dirname $file)"; head -c 2000000 /dev/urandom >$file; done
{OLD} /var/log/any.log /var/log/any.log.1 /var/log/mysql/mariadb-bin.000001
fallocate --length 3GiB /srv/large/file
tar --create --directory=/srv/image . | docker import --message nameless -
docker volume create kept
docker run --name filled --volume kept:/kept small /busybox sh -c 'echo data >/kept/data'
docker run --name ended small /busybox true
docker run --name release --label production.application=shop small /busybox true
docker run --detach --restart=unless-stopped --name stopped small /busybox sleep 100000
docker stop --time 0 stopped
docker run --detach --restart=unless-stopped --name moved "$(tar --create --directory=/srv/image . | docker import -)" \
  /busybox sleep 100000
systemd-run --quiet --unit=keeps python3 -c 'import os, time
file = open("/var/tmp/gone", "wb")
file.write(b"x" * 5000000)
file.flush()
os.unlink("/var/tmp/gone")
time.sleep(1000)'
# Nothing of Ansible's own fits on the disk.
mount -t tmpfs -o size=4k tmpfs /tmp && head -c 4096 /dev/zero >/tmp/full
"""
CONTAINERS = "docker ps --all --format '{{.Names}}' | sort | tr '\\n' ' '"


def there(one: Host, *paths: str) -> list[str]:
    return [path for path in paths if one.run(["test", "-e", path], check=False).code == 0]


def nameless(one: Host) -> int:
    """How many of the images are there that this test has planted; a container of another may need one, too."""
    listed = "docker image ls --quiet --filter dangling=true | xargs --no-run-if-empty docker image inspect"
    return one.sh(f"{listed} --format '{{{{.Comment}}}}'").count("nameless")


def test_what_may_go_goes_and_all_else_stays(edges: Fleet) -> None:
    for one in edges.hosts:
        one.sh(PLANT)
    before = [(one.sh(CONTAINERS), nameless(one)) for one in edges.hosts]
    for containers, images in before:
        assert {"ended", "filled", "moved", "release", "stopped"} <= {*containers.split()}
        assert images == 1
    try:
        dry = run(edges, "free_disk", check=True).ok()
        assert dry.changed == len(edges.hosts)
        for one, was in zip(edges.hosts, before, strict=True):
            assert there(one, *GOES, *STAYS) == [*GOES, *STAYS]
            assert (one.sh(CONTAINERS), nameless(one)) == was
        for words in (
            "would free: downloaded packages",
            "would free: rotated logs older than 14 days",
            "would free: core dumps",
            "would free: containers that ended",
            "would free: images without a name",
            "large: /srv/large, 3.0 GiB",
            "/var/tmp/gone, kept by python3",
        ):
            assert words in " ".join(dry.output.split()), dry.output

        freed = run(edges, "free_disk").ok()
        assert freed.changed == len(edges.hosts)
        assert "after: /: " in freed.output
        for one, (was, _images) in zip(edges.hosts, before, strict=True):
            assert there(one, *GOES, *STAYS) == [*STAYS]
            assert {*was.split()} - {*one.sh(CONTAINERS).split()} == {"ended"}
            assert nameless(one) == 0
            assert one.sh("docker image ls --quiet small; docker volume ls --quiet --filter name=kept").count("\n") == 2
            assert one.sh("docker run --rm --volume kept:/kept small /busybox cat /kept/data") == "data\n"
        again = run(edges, "free_disk").ok()
        assert again.changed == 0, again.output
        assert "there is nothing that may go without asking" in again.output
    finally:
        for one in edges.hosts:
            one.sh("umount /tmp; systemctl stop keeps; docker rm --force filled moved release stopped")
            one.sh("docker volume rm kept")
            one.sh(f"rm --force {' '.join(STAYS)}")


def test_sizes_that_are_none_are_refused(edges: Fleet) -> None:
    refused(run(edges, "free_disk", journal="much"), 'journal is "much": it is no size.', "Nothing was touched.")
    refused(run(edges, "free_disk", days=0), "days is 0", "Nothing was touched.")
