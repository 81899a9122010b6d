"""Every option away from its default, and what a client sees of it."""

from __future__ import annotations

import base64
import json
import random
import re
import secrets
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from headers import wrong_headers
from testinfra.host import Host
from web import Answer, Request, ask, handshake, logged

PORT = 8443
Files = partial(Request, "files.test", port=PORT)
App = partial(Request, "app.test", port=PORT)
Limited = partial(Request, "limited.test", port=PORT)
PASSWORDS = {"first": "canary-Hq2vT8mKz5Lw", "second": "canary-Xd6rB1nGp9Yc"}
SOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(b"sixteen bytes...").decode(),
}
FRAME = "\x81\x85\0\0\0\0hello"  # RFC 6455 §5.2, with a mask of four zeros
NONCE = re.compile(r"<script nonce=([0-9a-f]{32})></script>")

# The role's options replace the default set.
NEVER = ("Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy", "Permissions-Policy")


def stranger() -> str:
    """The address of a client that nginx has not seen before, also where the tests are run twice."""
    return ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])


def policy_of(answer: Answer, header: str = "Content-Security-Policy") -> dict[str, str]:
    """The directives of a policy with their sources."""
    return dict(part.strip().partition(" ")[::2] for part in answer.one(header).split(";"))


def test_headers_are_the_chosen_ones_and_those_of_the_site(host: Host) -> None:
    files, app = ask(host, Files(), App())
    assert not wrong_headers(files, without=[*NEVER, "X-Frame-Options", "Reporting-Endpoints"])
    assert not wrong_headers(app, without=NEVER)
    assert (files.one("X-Site"), app.one("X-Site")) == ("files", "")
    assert (files.one("X-Frame-Options"), app.one("X-Frame-Options")) == ("", "SAMEORIGIN")
    for answer in (files, app):
        assert answer.one("Referrer-Policy") == "no-referrer"
        assert answer.one("Cross-Origin-Embedder-Policy") == "require-corp"
        assert answer.one("Strict-Transport-Security") == "max-age=31536000; includeSubDomains; preload"


def test_the_policy_is_the_common_one_with_what_the_site_changes(host: Host) -> None:
    (answer,) = ask(host, Files())
    policy = policy_of(answer)
    assert (policy["base-uri"], policy["form-action"], policy["frame-ancestors"]) == ("'self'", "'none'", "'self'")
    assert policy["img-src"] == "'self' data:"
    assert policy["style-src"] == "'self' 'unsafe-inline'"
    assert re.fullmatch(r"'self' 'sha256-[A-Za-z0-9+/]{43}='", policy["script-src"])
    assert not {"font-src", "report-uri", "report-to", "upgrade-insecure-requests"} & policy.keys()


def test_no_reports_are_taken_where_none_are_asked_for(host: Host) -> None:
    asked, other = ask(host, *(site("/.well-known/csp-report", "POST", body="{}") for site in (Files, App)))
    assert (asked.status, other.status) == (405, 204)


def test_each_response_has_a_nonce_of_its_own_and_it_stands_in_the_page(host: Host) -> None:
    pages = ask(host, App("/page"), App("/page", headers={"Accept-Encoding": "gzip", "If-None-Match": "*"}))
    nonces = [NONCE.search(page.body) for page in pages]
    for page, found in zip(pages, nonces, strict=True):
        assert found, page.body
        assert policy_of(page)["script-src"] == f"'nonce-{found[1]}' 'strict-dynamic'"
        assert page.one("Cache-Control") == "no-store"
    assert len({found[1] for found in nonces if found}) == 2


def test_a_policy_on_trial_stands_beside_the_enforced_one(host: Host) -> None:
    (answer,) = ask(host, App())
    trial = policy_of(answer, "Content-Security-Policy-Report-Only")
    assert trial["img-src"] == "'none'"
    assert policy_of(answer)["img-src"] == "'self'"
    assert trial["report-uri"] == "/.well-known/csp-report"


def test_a_folder_that_others_fill_is_served_with_its_own_first_page(host: Host) -> None:
    page, route, kept, missing, dotenv, repository = ask(
        host, *map(Files, ("/", "/a/route", "/build/app.js", "/build/none.js", "/.env", "/.git/config"))
    )
    assert "<title>Home</title>" in page.body
    assert "<title>Home</title>" in route.body
    assert (kept.status, kept.one("Cache-Control")) == (200, "public, max-age=31536000, immutable")
    assert [answer.status for answer in (missing, dotenv, repository)] == [404, 404, 404]


def test_locations_answer_as_they_are_asked_to(host: Host) -> None:
    shared, moved, teapot = ask(host, *map(Files, ("/shared/note.txt", "/moved", "/teapot")))
    assert (shared.status, shared.body) == (200, "shared by all\n")
    assert (moved.status, moved.one("Location")) == (302, "https://else.test/")
    assert (teapot.status, teapot.body) == (418, "")


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_addresses_and_users_are_let_in_or_not(host: Host) -> None:
    assert [answer.status for answer in ask(host, Files("/office/"), Files("/office/", source="127.0.0.2"))] == [
        403,
        200,
    ]
    metrics = ask(host, App("/metrics"), App("/metrics", source="127.0.0.2"), App("/metrics/"))
    assert [answer.status for answer in metrics][:2] == [403, 200]
    let_in = ask(host, *(Files("/staff/", headers=basic(user, word)) for user, word in PASSWORDS.items()))
    swapped = ask(host, Files("/staff/", headers=basic("first", PASSWORDS["second"])))
    assert [answer.status for answer in (*let_in, *swapped)] == [200, 200, 401]


def test_a_whole_site_asks_for_a_password_that_its_application_never_hears(host: Host) -> None:
    first, second = (basic(user, word) for user, word in PASSWORDS.items())
    site = partial(Request, "console.test", port=PORT)
    shut = [{}, basic("first", "no"), second]
    nobody, wrong, other = ask(host, *(site("/any", headers=one) for one in shut))
    assert [answer.status for answer in (nobody, wrong, other)] == [401, 401, 401]
    assert nobody.one("WWW-Authenticate") == 'Basic realm="console.test"'
    assert not wrong_headers(nobody, without=NEVER)
    let_in, inner, not_inner = ask(
        host, site("/any", headers=first), site("/inner/a", headers=second), site("/inner/a", headers=first)
    )
    assert [answer.status for answer in (let_in, inner, not_inner)] == [200, 200, 401]
    assert [json.loads(answer.body)["headers"].get("Authorization") for answer in (let_in, inner)] == [None, None]


def test_what_programs_ask_for_stays_open_on_such_a_site(host: Host) -> None:
    """The health of the application and of nginx, challenges of ACME, reports of the CSP, and who to write to."""
    challenge = "/.well-known/acme-challenge/"
    host.check_output(f"install -D --mode=0644 /dev/null /var/www/acme{challenge}proof")
    site = partial(Request, "console.test", port=PORT)
    answers = ask(
        host,
        site("/ready"),
        site("/healthz"),
        site("/.well-known/security.txt"),
        site("/.well-known/csp-report", "POST", body="{}"),
        Request("console.test", f"{challenge}proof", port=8080, tls=False),
    )
    assert [answer.status for answer in answers] == [200, 204, 200, 204, 200]


@pytest.mark.parametrize(("asked", "served"), [(Limited, 2), (partial(Files, "/slowly/"), 3)], ids=["site", "location"])
def test_each_client_may_ask_so_often(host: Host, asked: partial[Request], served: int) -> None:
    source = stranger()
    answers = ask(host, *(asked(source=source) for _ in range(served + 1)), asked(source=stranger()))
    assert [answer.status for answer in answers] == [200] * served + [429, 200]


def test_bodies_may_be_as_large_as_site_and_location_say(host: Host) -> None:
    sizes = [("/", 3 * 1024), ("/", 3 * 1024 + 1), ("/api/", 5 * 1024), ("/api/", 5 * 1024 + 1)]
    answers = ask(host, *(App(path, "POST", filler=size) for path, size in sizes))
    assert [answer.status for answer in answers] == [200, 413, 200, 413]


def test_requests_go_to_all_servers_of_the_site_or_to_those_of_the_location(host: Host) -> None:
    answers = ask(host, *(App("/echo") for _ in range(4)), App("/api/echo"))
    ports = [json.loads(answer.body)["port"] for answer in answers]
    assert set(ports[:4]) == {3001, 3002}
    assert ports[4] == 3003


def test_a_silent_server_is_given_as_long_as_its_location_says(host: Host) -> None:
    """The application keeps silent for three seconds, twice as long as the site would wait."""
    (answer,) = ask(host, App("/api/slow"))
    assert (answer.status, answer.body) == (200, "late")


@pytest.mark.parametrize("path", ["/socket", "/api/socket"])
def test_websockets_are_passed_on(host: Host, path: str) -> None:
    (answer,) = ask(host, App(path, headers=SOCKET, body=FRAME))
    assert (answer.status, answer.body[-5:]) == (101, "hello")


def test_a_trusted_proxy_says_who_the_client_is(host: Host) -> None:
    """The last address that is not a proxy's own; what stands before it may be made up."""
    said = {"X-Forwarded-For": "6.6.6.6, 203.0.113.7, 10.0.0.5"}
    mark = secrets.token_hex(8)
    trusted, other = ask(host, App(f"/{mark}", headers=said, source="127.0.0.9"), App("/echo", headers=said))
    assert json.loads(trusted.body)["headers"]["X-Forwarded-For"] == "203.0.113.7"
    assert json.loads(other.body)["headers"]["X-Forwarded-For"] == "127.0.0.1"
    assert [line["client"] for line in logged(host, "/var/log/nginx/access.log", mark)] == ["203.0.113.7"]


def test_redirects_name_the_port_under_which_clients_come(host: Host) -> None:
    plain, alias, echo = ask(
        host,
        Request("files.test", "/a", port=8080, tls=False),
        Request("alias.test", "/a", port=PORT),
        App("/echo"),
    )
    for answer in (plain, alias):
        assert (answer.status, answer.one("Location")) == (301, "https://files.test:9443/a")
    assert json.loads(echo.body)["headers"]["X-Forwarded-Host"] == "app.test:9443"


def test_security_txt_says_all_it_is_told(host: Host) -> None:
    (answer,) = ask(host, Files("/.well-known/security.txt"))
    lines = answer.body.splitlines()
    day = (datetime.now(UTC) + timedelta(days=100)).strftime("%Y-%m-01")
    assert lines[0] == "Contact: mailto:security@files.test"
    assert lines[1] == "Contact: https://files.test/report"
    assert lines[2].startswith(f"Expires: {day}")
    assert set(lines[3:]) == {
        "Preferred-Languages: de, en",
        "Canonical: https://files.test:9443/.well-known/security.txt",
        "Policy: https://files.test/policy",
    }


def test_nginx_listens_where_it_is_told(host: Host) -> None:
    listening = host.check_output("ss --listening --tcp --numeric --no-header --process")
    found = set(re.findall(r"(\S+:\d+)\s+\S+\s+users:\(\(\"nginx\"", listening))
    assert found == {"0.0.0.0:8080", f"0.0.0.0:{PORT}", "127.0.0.1:8082"}


def test_tls_is_modern(host: Host) -> None:
    assert "New, TLSv1.3, Cipher is" in handshake(host, "files.test", port=PORT)
    assert "alert protocol version" in handshake(host, "files.test", "-tls1_2", port=PORT)


def test_the_certificate_is_the_given_one(host: Host) -> None:
    chain = "/etc/nginx/certificates/files.test/chain.pem"
    for name, code in (("files.test", "0 (ok)"), ("alias.test", "0 (ok)"), ("app.test", "62 (hostname mismatch)")):
        shown = handshake(host, "files.test", f"-CAfile {chain}", f"-verify_hostname {name}", port=PORT)
        assert f"Verify return code: {code}" in shown
        assert "issuer=CN = files.test" in shown or "issuer=CN=files.test" in shown
    key = host.file("/etc/nginx/certificates/files.test/key.pem")
    assert (key.mode, key.user) == (0o600, "root")


def test_idle_and_silent_clients_are_left_as_soon_as_it_says(host: Host) -> None:
    """A client that sends no request is left after a second, one that keeps its connection after two."""
    script = (
        "import socket, sys, time\n"
        "connection = socket.create_connection(('127.0.0.1', 8080))\n"
        "connection.sendall(sys.argv[1].encode())\n"
        "began = time.monotonic()\n"
        "while connection.recv(4096): pass\n"
        "print(time.monotonic() - began)\n"
    )
    silent = float(host.check_output("python3 -c %s %s", script, "GET / HTTP/1.1\r\n"))
    idle = float(host.check_output("python3 -c %s %s", script, "GET / HTTP/1.1\r\nHost: files.test\r\n\r\n"))
    assert 0.9 < silent < 1.9
    assert 1.9 < idle < 3.9


@pytest.mark.parametrize(
    "line",
    [
        "worker_connections 512;",
        "least_conn;",
        "ip_hash;",
        "keepalive 4;",
        "keepalive 2;",
        "proxy_connect_timeout 1s;",
        "proxy_connect_timeout 2s;",
        "proxy_read_timeout 1500ms;",
        "proxy_send_timeout 3s;",
        "proxy_send_timeout 4s;",
    ],
)
def test_what_no_client_sees_stands_in_the_running_configuration(host: Host, line: str) -> None:
    assert re.search(rf"^\s*{re.escape(line)}$", host.check_output("nginx -T 2>/dev/null"), re.MULTILINE)


def test_certificates_are_renewed_when_it_says(host: Host) -> None:
    hook = host.file("/usr/local/sbin/deploy-certificate")
    assert hook.mode == 0o755
    assert "* 50 / 100 / 3600" in hook.content_string
