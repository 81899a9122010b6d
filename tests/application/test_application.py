# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The application that other suites deploy: it does what its README says, and misbehaves only as it is built to.

It runs on the engine of the test hosts as the roles run it: not as root, from a read-only image. Database and Redis are
Debian's, set up by hand on a throw-away host.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import socket
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import application_image
import docker  # type: ignore[import-untyped]
import pytest
import registry_support
from hosts_support import Host, free_port, wait_for
from registry_support import serve_registry

PASSWORD = f"canary-{secrets.token_hex(12)}"
LABEL = "fushuma.application-test"
PORT = 3000
STOPS_WITHIN = 5.0  # seconds

TLS_PORT = 6380  # Redis's
# $1 is the password of all users, $2 the host's address.
SET_UP = f"""
set -eu
mkdir /etc/tls && cd /etc/tls
new() {{ openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 "$@" 2> /dev/null; }}
new -keyout ca.key -out ca.pem -subj /CN=authority
new -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem -subj /CN=server \
    -addext basicConstraints=critical,CA:FALSE -addext "subjectAltName=IP:$2"
chmod 0644 server.key
cat > /etc/mysql/mariadb.conf.d/99-test.cnf << END
[mariadbd]
bind-address = 0.0.0.0
ssl-cert = /etc/tls/server.pem
ssl-key = /etc/tls/server.key
[client]
ssl-verify-server-cert = OFF
END
cat >> /etc/redis/redis.conf << END
bind 0.0.0.0
tls-port {TLS_PORT}
tls-cert-file /etc/tls/server.pem
tls-key-file /etc/tls/server.key
tls-auth-clients no
user default off
user shop on >$1 ~shop:* resetchannels +@all -@admin -@dangerous +info
END
systemctl restart mariadb.service redis-server.service
mariadb << END
CREATE DATABASE shop;
CREATE USER shop@'%' IDENTIFIED BY '$1';
CREATE USER guarded@'%' IDENTIFIED BY '$1' REQUIRE SSL;
GRANT ALL ON shop.* TO shop@'%', guarded@'%';
END
"""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


@dataclass
class Started:
    """A process of the application in its container."""

    container: Any

    @property
    def address(self) -> str:
        self.container.reload()
        return str(self.container.attrs["NetworkSettings"]["IPAddress"])

    def ask(self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """What it answers; a POST where there is a body. Status 0 stands for none."""
        request = urllib.request.Request(f"http://{self.address}:{PORT}{path}", body, dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=20) as found:
                return Answer(found.status, found.headers, found.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())
        except OSError:
            return Answer(0, {}, b"")

    def add(self, name: str) -> Answer:
        body = json.dumps({"name": name, "price_cents": 100}).encode()
        return self.ask("/api/items", body, {"Content-Type": "application/json"})

    def ended(self) -> tuple[int, str]:
        """Its exit code and what it has said, once it has ended by itself."""
        code = int(self.container.wait(timeout=60)["StatusCode"])
        return code, self.said()

    def said(self) -> str:
        return str(self.container.logs().decode())

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM; returns the exit code and how many seconds it took."""
        began = time.monotonic()
        self.container.kill("SIGTERM")
        code = int(self.container.wait(timeout=60)["StatusCode"])
        return code, time.monotonic() - began

    def ready(self) -> Started:
        wait_for(lambda: self.ask("/ready").status == 200, f"ready; it says: {self.said()}")
        return self


def packed(name: str, text: str) -> bytes:
    """A tar archive of one file."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as tar:
        application_image.add(tar, name, text.encode())
    return memory.getvalue()


@dataclass
class Shop:
    """The engine, and the host with the database and Redis."""

    client: Any
    data: Host

    def loaded(self, release: str, behaviour: str = "good") -> application_image.Image:
        """An image that the engine has."""
        image = application_image.build(release, behaviour)
        with image.archive.open("rb") as archive:
            self.client.images.load(archive)
        return image

    def start(self, process: str, image: str = "shop:1.0.0", ca: str = "", **changes: str) -> Started:
        """A process of the application; with a ``ca`` it goes to the database and Redis over TLS."""
        if ca:
            place = "/uploads/ca.pem"
            changes = {"DATABASE_CA": place, "REDIS_CA": place, "REDIS_PORT": str(TLS_PORT), **changes}
        environment = {
            "DATABASE_HOST": self.data.record.address,
            "DATABASE_NAME": "shop",
            "DATABASE_USER": "shop",
            "DATABASE_PASSWORD": PASSWORD,
            "DATABASE_POOL": "4",
            "REDIS_HOST": self.data.record.address,
            "REDIS_USER": "shop",
            "REDIS_PASSWORD": PASSWORD,
            "SESSION_SECRET": "canary-session-6d1f",
            "UPLOADS": "/uploads",
            **changes,
        }
        container = self.client.containers.create(
            image,
            process.split(),
            environment=environment,
            read_only=True,
            tmpfs={"/tmp": ""},
            volumes=["/uploads"],
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            labels=[LABEL],
        )
        if ca:
            container.put_archive("/uploads", packed("ca.pem", ca))
        container.start()
        return Started(container)

    def sql(self, query: str) -> str:
        return self.data.run(["mariadb", "--batch", "--skip-column-names", "shop", "-e", query]).output.strip()

    def tidy(self) -> None:
        for container in self.client.containers.list(all=True, filters={"label": LABEL}):
            container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def shop(boot: Callable[..., Any]) -> Iterator[Shop]:
    data = boot("shopdata", "13", publish={free_port(): registry_support.PORT})
    data.install("mariadb-server", "openssl", "redis-server")
    data.run(["sh", "-c", SET_UP, "sh", PASSWORD, data.record.address])
    with closing(docker.from_env(timeout=120)) as client:
        found = Shop(client, data)
        found.loaded("1.0.0")
        assert found.start("migrate").ended()[0] == 0
        yield found
        found.tidy()


@pytest.fixture(scope="module")
def web(shop: Shop) -> Started:
    """One that all tests share that do not stop it."""
    return shop.start("web").ready()


# --- the process web


def test_those_who_run_it_are_told_how_it_is(web: Started) -> None:
    assert web.ask("/health").data == {"status": "ok"}
    assert web.ask("/ready").data == {"database": "ok", "redis": "ok"}
    version = web.ask("/version").data
    assert version["release"] == "1.0.0"
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", version["started"])
    assert web.container.exec_run(["/usr/bin/node", "/application/main.js", "probe"]).exit_code == 0


def test_figures_are_those_of_what_happened(web: Started) -> None:
    def figures() -> dict[str, float]:
        lines = web.ask("/metrics").body.decode().splitlines()
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _space, value in pairs}

    counter = 'http_requests_total{method="GET",route="",status="404"}'
    web.ask("/none")
    before = figures()
    web.ask("/none")
    after = figures()
    assert after[counter] == before[counter] + 1
    assert after['http_request_duration_seconds_bucket{le="+Inf"}'] == after["http_request_duration_seconds_count"]
    assert after["http_request_duration_seconds_count"] == before["http_request_duration_seconds_count"] + 2
    assert after["shop_pool_limit"] == 4
    assert after['shop_pool_connections{state="free"}'] >= 1
    assert after["shop_redis_up"] == 1
    assert after['shop_release_info{release="1.0.0"}'] == 1


def test_items_are_written_and_read_through_the_cache(web: Started, shop: Shop) -> None:
    web.ask("/api/items")
    created = web.add("Kettle")
    assert (created.status, created.data["queued"]) == (201, True)
    first, second = web.ask("/api/items"), web.ask("/api/items")
    assert [first.headers["X-Cache"], second.headers["X-Cache"]] == ["miss", "hit"]
    assert first.data == second.data
    assert first.data[0] == {"id": created.data["id"], "name": "Kettle", "price_cents": 100}
    assert shop.sql(f"SELECT name FROM items WHERE id = {created.data['id']}") == "Kettle"
    assert web.add("").status == 422


def test_more_requests_than_the_pool_has_connections_are_answered(web: Started, shop: Shop) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert {one.status for one in pool.map(web.add, [f"Cup {number}" for number in range(64)])} == {201}
    assert int(shop.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'shop'")) <= 4


def test_uploads_are_kept(web: Started) -> None:
    body = secrets.token_bytes(200_000)
    created = web.ask("/api/uploads?name=photo.PNG", body, {"Content-Type": "image/png"})
    assert created.status == 201
    found = web.ask(f"/uploads/{created.data['name']}")
    assert (found.status, found.body, found.headers["Content-Type"]) == (200, body, "image/png")
    assert web.ask("/api/uploads?name=page.html", b"<script>").status == 415
    assert web.ask("/uploads/../main.js").status == 404


def test_the_page_has_one_inline_script_and_its_assets(web: Started) -> None:
    page = web.ask("/")
    assert (page.status, page.headers["X-Release"]) == (200, "1.0.0")
    assert len(re.findall(r"<script>", page.body.decode())) == 1
    assert [web.ask(path).status for path in ("/assets/shop.js", "/assets/shop.css", "/assets/none.js")] == [
        *(200, 200),
        404,
    ]


def test_a_session_counts_while_its_secret_does(web: Started, shop: Shop) -> None:
    cookie = web.ask("/").headers["Set-Cookie"].partition(";")[0]
    rotated = shop.start("web", SESSION_SECRET="canary-next-a1", SESSION_FORMER_SECRET="canary-session-6d1f").ready()
    over = shop.start("web", SESSION_SECRET="canary-next-a1").ready()
    said = [one.ask("/api/session", headers={"Cookie": cookie}).data["session"] for one in (web, rotated, over)]
    assert said == ["valid", "valid", "invalid"]
    assert web.ask("/api/session").data == {"session": "none"}


def test_who_asks_too_much_is_turned_away(shop: Shop) -> None:
    limited = shop.start("web", RATE_LIMIT="3").ready()
    # The minute may change between two requests.
    found = [limited.ask("/api/items").status for _ in range(8)]
    assert found[:3] == [200] * 3
    assert 429 in found
    assert limited.ask("/health").status == 200


def test_what_nobody_foresaw_is_told_to_the_error_tracker(web: Started, shop: Shop) -> None:
    sent: list[tuple[str, list[dict[str, Any]]]] = []

    class Tracker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((self.path, [json.loads(line) for line in body.splitlines()]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            pass

    with ThreadingHTTPServer(("0.0.0.0", 0), Tracker) as tracker:
        threading.Thread(target=tracker.serve_forever, daemon=True).start()
        web.container.reload()
        gateway = web.container.attrs["NetworkSettings"]["Gateway"]
        dsn = f"http://{'ab' * 16}@{gateway}:{tracker.server_port}/7"
        telling = shop.start("web", SENTRY_DSN=dsn, SENTRY_ENVIRONMENT="tests").ready()
        assert (telling.ask("/none").status, telling.ask("/api/failure").status) == (404, 500)
        wait_for(lambda: sent, "an event")
        tracker.shutdown()
    [(path, [_head, kind, event])] = sent
    assert (path, kind) == ("/api/7/envelope/", {"type": "event"})
    assert (event["environment"], event["release"]) == ("tests", "1.0.0")
    (found,) = event["exception"]["values"]
    assert (found["type"], found["value"]) == ("Error", "a failure that was asked for")
    assert found["stacktrace"]["frames"][-1]["filename"] == "/application/source/web.js"


def test_it_outlives_its_database_and_redis(web: Started, shop: Shop) -> None:
    shop.data.sh("systemctl stop redis-server.service")
    wait_for(lambda: web.ask("/ready").status == 503, "not ready without Redis")
    answer = web.ask("/ready").data
    assert (answer["database"], answer["redis"] != "ok") == ("ok", True)
    assert (web.ask("/health").status, web.ask("/api/items").status) == (200, 200)
    assert web.container.exec_run(["/usr/bin/node", "/application/main.js", "probe"]).exit_code == 1
    shop.data.sh("systemctl stop mariadb.service")
    wait_for(lambda: web.ask("/ready").data["database"] != "ok", "not ready without the database")
    assert web.ask("/api/items").status == 500
    shop.data.sh("systemctl start mariadb.service redis-server.service")
    web.ready()
    assert web.add("Spoon").data["queued"] is True


def test_over_tls_it_goes_to_whom_its_authority_vouches_for_only(shop: Shop) -> None:
    plain = shop.start("web", DATABASE_USER="guarded")
    wait_for(lambda: plain.ask("/ready").status, "it answers")
    assert plain.ask("/ready").data["database"] == "ER_ACCESS_DENIED_ERROR"
    authority, stranger = (shop.data.read(f"/etc/tls/{name}") for name in ("ca.pem", "server.pem"))
    web = shop.start("web", ca=authority, DATABASE_USER="guarded").ready()
    assert web.add("Cosy").data["queued"] is True
    deceived = shop.start("web", ca=stranger, DATABASE_USER="guarded")
    wait_for(lambda: deceived.ask("/health").status == 200, "it runs")
    answer = deceived.ask("/ready")
    assert (answer.status, "ok" in answer.data.values()) == (503, False)


def refuses(address: str) -> bool:
    """Whether a visitor is turned away."""
    try:
        socket.create_connection((address, PORT), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_stop_lets_end_what_is_under_way(shop: Shop) -> None:
    stopped = shop.start("web").ready()
    address = stopped.address
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(stopped.ask("/api/slow?milliseconds=2000")))
    with socket.create_connection((address, PORT)) as idle:
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in idle.recv(4096)
        asking.start()
        time.sleep(0.5)
        stopped.container.kill("SIGTERM")
        wait_for(lambda: "stopping" in stopped.said(), "it stops")
        wait_for(lambda: refuses(address), "nobody new is let in")
        assert asking.is_alive()
        asking.join()
        began = time.monotonic()
        code, said = stopped.ended()
    assert answers[0].data == {"waited": 2000}
    assert (code, said.splitlines()[-1]) == (0, "stopped")
    assert time.monotonic() - began < STOPS_WITHIN


# --- the other processes


def test_jobs_are_done_and_none_is_lost(web: Started, shop: Shop) -> None:
    lost = {"id": secrets.token_hex(16), "item": 1}
    login = f"REDISCLI_AUTH={PASSWORD} redis-cli --user shop"
    # What a worker that was killed has left.
    shop.data.sh(f"{login} lpush shop:taken '{json.dumps(lost)}'")
    item = web.add("Tray").data["id"]
    worker = shop.start("worker")
    for condition in (f"item = {item}", f"id = '{lost['id']}'"):
        query = f"SELECT COUNT(*) FROM jobs WHERE {condition} AND release_name = '1.0.0'"
        wait_for(lambda query=query: shop.sql(query) == "1", f"the job is done: {worker.said()}")
    wait_for(lambda: shop.data.sh(f"{login} llen shop:taken").strip() == "0", "nothing is left over")
    assert "heartbeat" in worker.said()
    shop.data.sh("systemctl restart mariadb.service redis-server.service")
    web.ready()
    item = web.add("Saucer").data["id"]
    wait_for(lambda: shop.sql(f"SELECT COUNT(*) FROM jobs WHERE item = {item}") == "1", "it goes on after restarts")
    code, seconds = worker.stop()
    assert (code, seconds < STOPS_WITHIN) == (0, True)


def test_a_report_is_one_row(shop: Shop) -> None:
    before = int(shop.sql("SELECT COUNT(*) FROM reports"))
    assert shop.start("report").ended() == (0, "reported\n")
    assert int(shop.sql("SELECT COUNT(*) FROM reports")) == before + 1


def test_migrations_are_applied_once(shop: Shop) -> None:
    assert shop.start("migrate").ended() == (0, "nothing to apply\n")
    shop.data.run(["mariadb", "-e", "CREATE DATABASE fresh; GRANT ALL ON fresh.* TO shop@'%'"])
    # Another one is at work for some seconds.
    hold = "SELECT GET_LOCK('shop.migrations', 0), SLEEP(5)"
    shop.data.run(["systemd-run", "--quiet", "--collect", "mariadb", "-e", hold])
    held = "SELECT IS_USED_LOCK('shop.migrations') IS NOT NULL"
    wait_for(lambda: shop.sql(held) == "1", "the lock is held")
    applied = "applied 0001_items.sql\napplied 0002_jobs_and_reports.sql\napplied 2\n"
    assert shop.start("migrate", DATABASE_NAME="fresh").ended() == (0, applied)
    assert shop.sql(held) == "0"


@pytest.mark.parametrize("process", ["web", "worker", "report", "migrate"])
def test_what_is_not_set_is_said_at_once(shop: Shop, process: str) -> None:
    code, said = shop.start(process, DATABASE_PASSWORD="", DATABASE_POOL="many").ended()
    assert (code, said) == (1, "DATABASE_PASSWORD is not set. DATABASE_POOL is no whole number.\n")


# --- images


def test_an_image_holds_no_more_than_it_needs(web: Started) -> None:
    assert web.container.attrs["Config"]["User"] == "10001:10001"
    found = web.container.exec_run(["/usr/bin/node", "-p", "process.getuid()"])
    assert found.output.decode().strip() == "10001"
    for program in ("/bin/sh", "/usr/bin/apt-get", "/usr/bin/perl"):
        assert "no such file" in web.container.exec_run([program, "-c", "true"]).output.decode()


def test_never_ready(shop: Shop) -> None:
    shop.loaded("1.1.0", "never_ready")
    started = shop.start("web", "shop:1.1.0")
    wait_for(lambda: started.ask("/health").status == 200, "it runs")
    assert [started.ask("/ready").status for _ in range(3)] == [503] * 3
    assert started.ask("/").status == 200


def test_broken_page(shop: Shop) -> None:
    shop.loaded("1.2.0", "broken_page")
    started = shop.start("web", "shop:1.2.0").ready()
    page = started.ask("/")
    assert (page.status, "X-Release" in page.headers) == (500, False)


def test_broken_migration(shop: Shop) -> None:
    shop.loaded("1.3.0", "broken_migration")
    code, said = shop.start("migrate", "shop:1.3.0").ended()
    assert (code, said.splitlines()[0][:22]) == (1, "0003_broken.sql failed")
    assert shop.start("migrate").ended() == (0, "nothing to apply\n")


def test_crashes(shop: Shop) -> None:
    shop.loaded("1.4.0", "crashes")
    assert shop.start("web", "shop:1.4.0").ended()[0] == 1
    assert shop.start("worker", "shop:1.4.0").ended()[0] == 1


def test_releases_share_all_layers_and_differ(shop: Shop) -> None:
    images = [shop.loaded(release) for release in ("1.0.0", "1.0.1")]
    known = [shop.client.images.get(one.name) for one in images]
    assert [one.id for one in known] == [one.identity for one in images]
    assert known[0].id != known[1].id
    assert known[0].attrs["RootFS"] == known[1].attrs["RootFS"]


def test_a_host_can_build_it_itself(shop: Shop) -> None:
    with application_image.build_base().archive.open("rb") as archive:
        shop.client.images.load(archive)
    folder = Path(application_image.SOURCE)
    shop.client.images.build(path=str(folder), tag="shop:built", buildargs={"RELEASE": "2.0.0"}, rm=True)
    started = shop.start("web", "shop:built").ready()
    assert started.ask("/version").data["release"] == "2.0.0"
    by_hand, made = (shop.client.images.get(name).attrs["Config"] for name in ("shop:built", "shop:1.0.0"))
    for key in ("Cmd", "Entrypoint", "ExposedPorts", "User", "WorkingDir"):
        assert by_hand[key] == made[key]


def test_it_is_pulled_by_its_digest(shop: Shop) -> None:
    registry = serve_registry(shop.data)
    image = application_image.build("3.0.0")
    name = registry.push(image)
    assert registry.push(image) == name
    # Docker does not judge the certificates of registries on 127.0.0.1.
    local = name.replace(registry.place, f"127.0.0.1:{shop.data.port(registry_support.PORT)}")
    with pytest.raises(docker.errors.APIError, match="no basic auth credentials"):
        shop.client.images.pull(local)
    login = {"username": registry.user, "password": registry.password}
    pulled = shop.client.images.pull(local, auth_config=login)
    assert (pulled.id, pulled.attrs["RepoDigests"]) == (image.identity, [local])
    shop.client.images.remove(local)
