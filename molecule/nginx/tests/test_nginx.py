"""The role as most people use it: a front end from the controller and an application behind nginx."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import secrets
import time
from functools import partial

import pytest
from headers import wrong_headers
from testinfra.host import Host
from web import HTTP2, Answer, Request, ask, handshake, logged

Static = partial(Request, "static.test")
App = partial(Request, "app.test")

OPERATOR = "operator:canary-Mp4vX9qLrT2w"
BASIC = {"Authorization": "Basic " + base64.b64encode(OPERATOR.encode()).decode()}
DAY = 86400  # seconds
HIDDEN = ("/.hidden", "/dump.sql", "/index.html.bak", "/server.key")
SOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(b"sixteen bytes...").decode(),
}
# A text frame whose mask is four zeros (RFC 6455 §5.2).
FRAME = "\x81\x85\0\0\0\0hello"

# Every way in which nginx comes to an answer.
WAYS = {
    "page": (Static(), 200),
    "single page": (Static("/a/route/of/the/application"), 200),
    "immutable": (Static("/assets/app.js"), 200),
    "immutable, missing": (Static("/assets/missing.js"), 404),
    "missing file": (Static("/missing.js"), 404),
    "HEAD": (Static(method="HEAD"), 200),
    "not modified": (Static(headers={"If-None-Match": "*"}), 304),
    "range": (Static(headers={"Range": "bytes=0-9"}), 206),
    "range outside": (Static(headers={"Range": "bytes=999999-"}), 416),
    "redirect": (Static("/old"), 302),
    "status": (Static("/gone"), 410),
    "security.txt": (Static("/.well-known/security.txt"), 200),
    "report": (Static("/.well-known/csp-report", "POST", body="{}"), 204),
    "report by GET": (Static("/.well-known/csp-report"), 403),
    "dot file": (Static("/.hidden"), 404),
    "no password": (Static("/guarded/"), 401),
    "bad request": (Static(headers={"Bad Header": "x"}), 400),
    "long address": (Static("/" + 20000 * "a"), 414),
    "POST to a file": (Static(method="POST"), 405),
    "large body": (Static(method="POST", filler=(1 << 20) + 1), 413),
    "alias": (Request("www.static.test"), 301),
    "application": (App(), 200),
    "application, HEAD": (App(method="HEAD"), 200),
    "metrics": (App("/metrics"), 404),
    "metrics, otherwise spelt": (App("/Metrics/"), 404),
    "address not allowed": (App("/inner/"), 403),
    "address allowed": (App("/inner/", source="127.0.0.2"), 200),
    "upload": (App("/upload/", "POST", filler=2049), 413),
    "application down": (App("/down/"), 502),
    "application silent": (App("/slow"), 504),
    "application, sensitive name": (App("/backup.sql"), 404),
    "websocket": (App("/socket", headers=SOCKET, body=FRAME), 101),
}


@pytest.fixture(scope="module")
def answers(host: Host) -> dict[str, Answer]:
    """The answer to each of WAYS."""
    return dict(zip(WAYS, ask(host, *(request for request, _status in WAYS.values())), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_every_answer_has_the_whole_set_of_headers_once(answers: dict[str, Answer], way: str) -> None:
    answer = answers[way]
    assert answer.status == WAYS[way][1], answer
    assert not wrong_headers(answer)
    assert answer.one("Server") in ("nginx", "")
    assert not answer.one("X-Powered-By")


def test_the_set_holds_what_it_shall(host: Host) -> None:
    (answer,) = ask(host, Static())
    script = base64.b64encode(hashlib.sha256(b'document.title = "Run";').digest()).decode()
    policy = dict(part.strip().partition(" ")[::2] for part in answer.one("Content-Security-Policy").split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"'self' 'sha256-{script}'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["report-uri"] == "/.well-known/csp-report"
    assert answer.one("Strict-Transport-Security") == "max-age=63072000"
    assert answer.one("X-Content-Type-Options") == "nosniff"


def test_the_application_keeps_its_other_headers(host: Host) -> None:
    (answer,) = ask(host, App())
    assert answer.one("X-Own") == "kept"


def stranger() -> str:
    """The address of a client that nginx has not seen before, also where the tests are run twice."""
    return ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])


def test_too_many_requests_of_one_client_are_turned_away(host: Host) -> None:
    limited = Static("/limited/", source=stranger())
    answers = ask(host, limited, limited, limited, Static("/limited/", source=stranger()))
    assert [answer.status for answer in answers] == [200, 200, 429, 200]
    assert not wrong_headers(answers[2])


def test_a_client_cannot_choose_its_address(host: Host) -> None:
    """Neither the application nor the limit of requests believes what a client says of itself."""
    forged = {"X-Forwarded-For": "10.9.8.7", "X-Real-IP": "10.9.8.7", "X-Forwarded-Proto": "http"}
    mark = secrets.token_hex(8)
    (answer,) = ask(host, App(f"/{mark}", headers=forged, source="127.0.0.3"))
    seen = json.loads(answer.body)["headers"]
    assert (seen["X-Forwarded-For"], seen["X-Real-IP"]) == ("127.0.0.3", "127.0.0.3")
    assert (seen["X-Forwarded-Proto"], seen["X-Forwarded-Host"]) == ("https", "app.test")

    source = stranger()
    limited = [Static("/limited/", headers={"X-Forwarded-For": f"10.0.0.{n}"}, source=source) for n in range(3)]
    assert [one.status for one in ask(host, *limited)] == [200, 200, 429]

    assert [line["client"] for line in logged(host, "/var/log/nginx/access.log", mark)] == ["127.0.0.3"]


def test_names_that_no_site_has_are_rejected_on_both_ports(host: Host) -> None:
    plain, tls, nameless, known = ask(
        host,
        Request("other.test", port=80, tls=False),
        Request("other.test"),
        Request("", headers={"Host": "static.test"}),
        Static(),
    )
    assert (plain.status, tls.status, nameless.status, known.status) == (0, 0, 0, 200)
    assert "RemoteDisconnected" in plain.reason
    assert "UNRECOGNIZED_NAME" in tls.reason
    assert "UNRECOGNIZED_NAME" in nameless.reason


def test_plain_requests_are_redirected_and_promise_nothing_about_tls(host: Host) -> None:
    redirected, alias = ask(
        host, Static("/a?b=c", port=80, tls=False), Request("www.static.test", "/a?b=c", port=80, tls=False)
    )
    assert (redirected.status, redirected.one("Location")) == (301, "https://static.test/a?b=c")
    assert (alias.status, alias.one("Location")) == (301, "https://www.static.test/a?b=c")
    for answer in (redirected, alias):
        assert not wrong_headers(answer, without=["Strict-Transport-Security"])


def test_redirects_lead_where_they_shall(host: Host) -> None:
    alias, old = ask(host, Request("www.static.test", "/a?b=c"), Static("/old"))
    assert alias.one("Location") == "https://static.test/a?b=c"
    assert old.one("Location") == "/new"


def test_sensitive_files_lie_in_the_folder_and_are_not_served(host: Host) -> None:
    assert all(host.file(f"/var/www/static.test{path}").is_file for path in HIDDEN)
    assert [answer.status for answer in ask(host, *map(Static, HIDDEN))] == [404] * len(HIDDEN)


def test_files_that_never_change_are_kept_for_a_year_and_pages_are_not(host: Host) -> None:
    page, route, below, kept, missing = ask(
        host,
        *map(Static, ("/", "/a/route", "/below.html", "/assets/app.js", "/assets/missing.js")),
    )
    assert kept.one("Cache-Control") == "public, max-age=31536000, immutable"
    assert (missing.status, missing.one("Cache-Control")) == (404, "")
    assert {page.one("Cache-Control"), route.one("Cache-Control"), below.one("Cache-Control")} == {"no-cache"}


def test_a_missing_script_is_missing_and_not_a_page(host: Host) -> None:
    route, script, asset = ask(host, *map(Static, ("/a/route", "/missing.js", "/assets/missing.js")))
    assert (route.status, "<title>The page</title>" in route.body) == (200, True)
    for answer in (script, asset):
        assert (answer.status, "The page" in answer.body) == (404, False)


def test_content_has_its_type(host: Host) -> None:
    page, script = ask(host, Static(), Static("/assets/app.js"))
    assert page.one("Content-Type") == "text/html; charset=utf-8"
    assert re.fullmatch(r"(text|application)/javascript; charset=utf-8", script.one("Content-Type"))


def test_large_texts_are_compressed_for_those_who_ask(host: Host) -> None:
    packed, plain = ask(host, Static("/assets/app.js", headers={"Accept-Encoding": "gzip"}), Static("/assets/app.js"))
    assert (packed.one("Content-Encoding"), plain.one("Content-Encoding")) == ("gzip", "")
    assert packed.size * 3 < plain.size
    assert packed.one("Vary") == "Accept-Encoding"


def test_uploads_up_to_the_limit_pass(host: Host) -> None:
    fits, too_large = (App("/upload/", "POST", filler=size) for size in (2048, 2049))
    answers = ask(host, fits, too_large)
    assert [answer.status for answer in answers] == [200, 413]
    assert json.loads(answers[0].body) == {"received": 2048}


def test_the_operator_is_let_in_with_the_password_only(host: Host) -> None:
    wrong = {"Authorization": "Basic " + base64.b64encode(b"operator:guessed").decode()}
    let_in, without, guessed = ask(
        host, Static("/guarded/", headers=BASIC), Static("/guarded/"), Static("/guarded/", headers=wrong)
    )
    assert (let_in.status, without.status, guessed.status) == (200, 401, 401)
    (users,) = host.check_output("ls /etc/nginx/users").splitlines()
    file = host.file(f"/etc/nginx/users/{users}")
    assert (file.mode, file.user, file.group) == (0o640, "root", "www-data")
    assert "canary" not in file.content_string


def test_security_txt_says_whom_to_tell(host: Host) -> None:
    (answer,) = ask(host, Static("/.well-known/security.txt"))
    fields = dict(line.split(": ", 1) for line in answer.body.splitlines())
    assert fields["Contact"] == "mailto:security@static.test"
    assert fields["Canonical"] == "https://static.test/.well-known/security.txt"
    expires = time.mktime(time.strptime(fields["Expires"], "%Y-%m-%dT%H:%M:%SZ"))
    assert 265 * DAY < expires - time.time() < 305 * DAY  # the first of a month, 300 days on
    assert answer.one("Content-Type").startswith("text/plain")


def test_violations_that_browsers_report_reach_the_log(host: Host) -> None:
    mark = secrets.token_hex(8)
    report = json.dumps({"csp-report": {"blocked-uri": mark}})
    (answer,) = ask(host, Static("/.well-known/csp-report", "POST", {"Content-Type": "application/csp-report"}, report))
    assert answer.status == 204
    (line,) = logged(host, "/var/log/nginx/csp.log", mark)
    assert (line["host"], json.loads(line["report"])["csp-report"]["blocked-uri"]) == ("static.test", mark)


def test_a_websocket_is_passed_on(host: Host) -> None:
    (answer,) = ask(host, App("/socket", headers=SOCKET, body=FRAME))
    assert (answer.status, answer.one("Upgrade"), answer.body[-5:]) == (101, "websocket", "hello")


def test_figures_are_for_the_host_alone(host: Host) -> None:
    listening = host.check_output("ss --listening --tcp --numeric --no-header --process")
    found = re.findall(r"(\S+):(\d+)\s+\S+\s+users:\(\(\"nginx\"", listening)
    assert sorted(set(found)) == sorted(
        {("0.0.0.0", "80"), ("[::]", "80"), ("0.0.0.0", "443"), ("[::]", "443"), ("127.0.0.1", "8081")}
    )
    (status,) = ask(host, Request("127.0.0.1", "/status", port=8081, tls=False))
    assert "Active connections" in status.body


def test_tls_is_new_enough_and_its_keys_are_exchanged_as_the_guideline_says(host: Host) -> None:
    newest = handshake(host, "static.test")
    group = "X25519MLKEM768" if host.system_info.release.startswith("13") else "X25519"
    assert "New, TLSv1.3, Cipher is" in newest
    assert re.search(rf"(Negotiated TLS1.3 group|Server Temp Key|Peer Temp Key): {group}\b", newest), newest
    older = handshake(host, "static.test", "-tls1_2", "-cipher ECDHE-ECDSA-AES128-GCM-SHA256")
    assert "New, TLSv1.2, Cipher is ECDHE-ECDSA-AES128-GCM-SHA256" in older
    assert "alert protocol version" in handshake(host, "static.test", "-tls1_1", "-cipher ALL:@SECLEVEL=0")
    # Without forward secrecy, and without authenticated encryption.
    for cipher in ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256"):
        assert "alert handshake failure" in handshake(host, "static.test", "-tls1_2", f"-cipher {cipher}")


def test_the_certificate_is_for_the_names_of_the_site(host: Host) -> None:
    chain = "/etc/nginx/certificates/static.test/chain.pem"
    for name, accepted in (("static.test", True), ("www.static.test", True), ("app.test", False)):
        shown = handshake(host, "static.test", f"-CAfile {chain}", f"-verify_hostname {name}", "-verify_return_error")
        assert ("Verify return code: 0 (ok)" in shown) == accepted, shown
    key = host.file("/etc/nginx/certificates/static.test/key.pem")
    assert (key.mode, key.user) == (0o600, "root")


def test_http2_is_spoken(host: Host) -> None:
    assert host.check_output("python3 -c %s static.test", HTTP2) == "h2 200"


def test_nginx_runs_what_is_on_the_disk_and_starts_at_boot(host: Host) -> None:
    service = host.service("nginx")
    assert service.is_running
    assert service.is_enabled
    record = json.loads(host.file("/var/lib/fushuma-production/nginx.record").content_string)
    assert "/etc/nginx/nginx.conf" in record["files"]
    (running,) = ask(host, Request("127.0.0.1", "/digest", port=8081, tls=False))
    written = re.search(r'return 200 "([0-9a-f]{16})\\n";', host.file("/etc/nginx/nginx.conf").content_string)
    assert written
    assert running.body == f"{written[1]}\n"
