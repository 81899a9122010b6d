"""A whole host by playbooks/site.yml, as its visitors and its operator see it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import partial

from headers import wrong_headers
from runs import all_runs
from testinfra.host import Host
from web import Request, ask

Site = partial(Request, "www.site.test")
OPERATOR = {"Authorization": "Basic " + base64.b64encode(b"operator:canary-Vc3nZ8sWq1Xt").decode()}


def digest(kind: str, text: str) -> str:
    """As browsers compute it for a policy and for integrity attributes."""
    return f"{kind}-{base64.b64encode(hashlib.new(kind, text.encode()).digest()).decode()}"


def test_a_visitor_ends_at_the_page_whichever_address_is_typed(host: Host) -> None:
    first, second, page = ask(host, Request("site.test", port=80, tls=False), Request("site.test"), Site())
    assert (first.status, first.one("Location")) == (301, "https://site.test/")
    assert (second.status, second.one("Location")) == (301, "https://www.site.test/")
    assert (page.status, "<h1>It runs</h1>" in page.body) == (200, True)
    assert not wrong_headers(first, without=["Strict-Transport-Security"])
    assert not wrong_headers(second)
    assert not wrong_headers(page)


def test_the_page_finds_all_it_names_and_its_policy_lets_it_run(host: Host) -> None:
    (page,) = ask(host, Site())
    named = re.findall(r'<(?:link|script)[^>]+(?:href|src)="([^"]+)"(?:[^>]+integrity="([^"]+)")?', page.body)
    assert len(named) == 3
    for (path, integrity), answer in zip(named, ask(host, *(Site(path) for path, _integrity in named)), strict=True):
        assert answer.status == 200, path
        assert integrity in ("", digest("sha384", answer.body)), path
    inline = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", page.body, re.DOTALL)
    assert len(inline) == 2
    for text in inline:
        assert f"'{digest('sha256', text)}'" in page.one("Content-Security-Policy")


def test_the_operator_sees_figures_and_visitors_do_not(host: Host) -> None:
    seen, hidden, metrics = ask(host, Site("/status", headers=OPERATOR), Site("/status"), Site("/metrics.log"))
    assert (seen.status, "Active connections" in seen.body) == (200, True)
    assert (hidden.status, metrics.status) == (401, 404)


def test_nothing_else_is_reachable_from_outside(host: Host) -> None:
    listening = host.check_output("ss --listening --tcp --udp --numeric --no-header").splitlines()
    places = {line.split()[4] for line in listening}
    outside = {place.rpartition(":")[2] for place in places if not place.startswith(("127.", "[::1]"))}
    assert outside == {"22", "80", "443"}


def test_settings_are_judged_before_a_host_is_touched() -> None:
    first = next(run for run in all_runs() if "PLAY [Serve sites over TLS]" in run.text)
    assert re.findall(r"^PLAY \[(.*?)\]", first.text, re.MULTILINE) == [
        "Judge the settings",
        "Harden every host and let in only what was declared",
        "Keep data",
        "Run the engine of containers",
        "Serve sites over TLS",
        "Deploy applications, one batch of hosts after the other",
        "Back up what there is now, in several places",
        "Measure every host",
        "Watch the figures, keep the logs and collect errors",
        "Ship the logs of every host",
    ]


def test_the_firewall_lets_in_what_the_roles_say(host: Host) -> None:
    rules = host.check_output("nft list table inet production")
    for port in ("22", "80", "443"):
        assert re.search(rf"\b{port}\b", rules), f"port {port} is in no rule"
    assert not re.search(r"\b8081\b", rules), "what listens on loopback only needs no rule"
    assert host.check_output("fail2ban-client status sshd")


def test_the_host_is_well(host: Host) -> None:
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
    assert host.run("nginx -t").rc == 0


def test_what_is_switched_off_is_not_brought(host: Host) -> None:
    assert not host.package("prometheus-node-exporter").is_installed
    assert not host.package("syslog-ng-core").is_installed, "there is no store of logs"
