"""Errors arrive over TLS, are told of and found again; keys change without a lost one; what does not work is undone."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import Played, Result, all_hosts, inventory, play, run_playbook
from testinfra.host import Host

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
ROLE = Path(__file__).parents[3] / "roles" / "sentry"
PROGRAMS = "import json; print(json.load(open('/etc/bugsink/programs.json'))['programs'])"
PYTHON = f'/opt/bugsink/$(python3 -c "{PROGRAMS}")/bin/python'
UNITS = ("bugsink", "bugsink-snappea", "sentry-proof", "bugsink-copy")
AUTHORITY = "/run/errors.pem"

# An application with Sentry's own SDK.
APPLICATION = """
import sentry_sdk, sys
sentry_sdk.init(dsn=sys.argv[1], ca_certs="/run/errors.pem", release="shop@7", environment="production")
def pay():
    raise ValueError(sys.argv[2])
try:
    pay()
except ValueError as error:
    print(sentry_sdk.capture_exception(error))
sentry_sdk.flush(10)
"""
ASK = """
import json, sys, urllib.request
wanted = json.load(open("/etc/bugsink/declared.json"))["tokens"][0]["token"]
request = urllib.request.Request("http://127.0.0.1:8010/api/canonical/0/" + sys.argv[1])
request.add_header("Authorization", "Bearer " + wanted)
print(urllib.request.urlopen(request).read().decode())
"""


def role(settings: Mapping[str, Any], **keywords: Any) -> dict[str, Any]:
    return {"ansible.builtin.include_role": {"name": "fushuma.production.sentry", **keywords}, "vars": settings}


def changed(**settings: Any) -> dict[str, Any]:
    return {**deepcopy(SETTINGS), **settings}


def of_role(results: Sequence[Result]) -> list[Result]:
    """What the transactions of the role ended with."""
    return [one for one in results if "paths" in one or (one["failed"] and "sentry:" in str(one.get("msg")))]


def command(script: str) -> dict[str, Any]:
    return {"ansible.builtin.command": {"argv": ["sh", "-c", script]}}


def key_of(host: Host, number: int) -> str:
    declared = json.loads(host.file("/etc/bugsink/declared.json").content_string)
    return str(next(one["key"] for one in declared["projects"] if one["number"] == number))


def dsn(host: Host, number: int, key: str = "") -> str:
    return f"https://{key or key_of(host, number)}@errors.test/{number}"


@pytest.fixture(autouse=True, scope="module")
def trusted() -> None:
    """The certificate that nginx shows, as an authority."""
    shown = "openssl s_client -connect 127.0.0.1:443 -servername errors.test </dev/null 2>/dev/null"
    for host in all_hosts().values():
        host.check_output(f"{shown} | openssl x509 > {AUTHORITY}")


def send(host: Host, to: str, words: str) -> str:
    script = f"{PYTHON} -c {shlex.quote(APPLICATION)} {to} {shlex.quote(words)}"
    return str(host.check_output(script)).strip()


def asked(host: Host, path: str) -> list[dict[str, Any]]:
    output = host.check_output(f"python3 -c {shlex.quote(ASK)} {shlex.quote(path)}")
    found: list[dict[str, Any]] = json.loads(output)["results"]
    return found


def issues(host: Host, number: int) -> list[str]:
    return [f"{one['calculated_type']}: {one['calculated_value']}" for one in asked(host, f"issues/?project={number}")]


def until(what: Any, seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def told(host: Host, key: str, words: str) -> dict[str, Any] | None:
    """What people were told last with these words in it, of what has this key: `message` by mail, `body` by webhook."""
    lines = [json.loads(line) for line in host.check_output("cat /srv/inbox/told").splitlines()]
    return next((one for one in reversed(lines) if words in json.dumps(one.get(key))), None)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_arrives_over_tls_and_is_told_of(host: Host) -> None:
    words = "no money at " + "".join(chr(97 + int(digit)) for digit in f"{time.time():.0f}")
    event = send(host, dsn(host, 2), words)
    assert until(lambda: f"ValueError: {words}" in issues(host, 2))
    issue = next(one for one in asked(host, "issues/?project=2") if one["calculated_value"] == words)
    assert event in [one["event_id"].replace("-", "") for one in asked(host, f"events/?issue={issue['id']}")]
    mail = until(lambda: told(host, "message", words))["message"]
    assert "To: team@errors.test" in mail
    assert "From: errors@errors.test" in mail
    assert f"https://errors.test/issues/issue/{issue['id']}" in mail.replace("=\r\n", "").replace("=\n", "")
    hook = until(lambda: told(host, "body", words))
    assert hook["path"] == "/canary-hook-5e8a1b60c3"
    assert hook["body"]["alert_reason"] == "NEW"


def test_release_and_environment_are_known(host: Host) -> None:
    send(host, dsn(host, 2), "with a release")
    event = until(lambda: [one for one in issues(host, 2) if "with a release" in one])
    assert event
    database = "sqlite3.connect('file:/var/lib/bugsink/db.sqlite3?mode=ro', uri=True)"
    rows = f"{database}.execute('select distinct release, environment from events_event').fetchall()"
    script = f"import sqlite3; print({rows})"
    assert "('shop@7', 'production')" in host.check_output(f"python3 -c {shlex.quote(script)}")


def test_the_key_before_still_counts_and_no_other_does(host: Host) -> None:
    former = SETTINGS["sentry_projects"][1]["former_key"]
    for words, key in (("the former key", former), ("the present key", ""), ("another key", "deadbeef" * 4)):
        send(host, dsn(host, 3, key), words)
    assert until(lambda: {"ValueError: the former key", "ValueError: the present key"} <= set(issues(host, 3)))
    assert "ValueError: another key" not in issues(host, 3)


def test_browsers_may_report_what_a_policy_blocked(host: Host) -> None:
    report = {"csp-report": {"document-uri": "https://shop.test/", "effective-directive": "script-src"}}
    report["csp-report"]["blocked-uri"] = "https://evil.test/x.js"
    ask = "import sys, urllib.request, ssl; t = ssl.create_default_context(cafile='/run/errors.pem'); "
    ask += "r = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {'Content-Type': 'application/csp-report'}); "
    ask += "print(urllib.request.urlopen(r, context=t).status)"
    url = f"https://errors.test/api/2/security/?sentry_key={key_of(host, 2)}"
    said = host.check_output(f"python3 -c {shlex.quote(ask)} {shlex.quote(url)} {shlex.quote(json.dumps(report))}")
    assert said.strip() == "200"
    assert until(lambda: "CSP: blocked https://evil.test/x.js (script-src)" in issues(host, 2))


def test_nobody_reads_without_a_token_or_a_password(host: Host) -> None:
    script = "import sys, urllib.request, urllib.error\ntry: print(urllib.request.urlopen(sys.argv[1]).status)\n"
    script += "except urllib.error.HTTPError as error: print(error.code)"
    for path, status in (("api/canonical/0/projects/", "401"), ("api/canonical/0/issues/?project=2", "401")):
        url = f"http://127.0.0.1:8010/{path}"
        assert host.check_output(f"python3 -c {shlex.quote(script)} {shlex.quote(url)}").strip() == status


# --- source maps -----------------------------------------------------------------------------------------------------

CLI = "@sentry/cli-linux-x64@3.8.0"
BUILD = """
mkdir -p /var/tmp/build && cd /var/tmp/build
echo 'function pay(){throw new Error("no money")}pay();\n//# sourceMappingURL=app.js.map' > app.js
echo '{"version":3,"sources":["pay.ts"],"sourcesContent":["pay"],"names":[],"mappings":"AAAA"}' > app.js.map
cp /run/errors.pem /usr/local/share/ca-certificates/errors.crt && update-ca-certificates
/usr/local/bin/sentry-cli sourcemaps inject /var/tmp/build
"""


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Sentry's own program from npm uploads, by the runbook, with a token that may do nothing else."""
    folder = tmp_path_factory.mktemp("npm")
    npm = shutil.which("npm")
    if not npm or subprocess.run([npm, "pack", "--silent", CLI], cwd=folder, check=False, timeout=120).returncode:
        pytest.skip("npm: sentry-cli cannot be had here")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extract("package/bin/sentry-cli", folder)
    program = {"src": str(folder / "package/bin/sentry-cli"), "dest": "/usr/local/bin/sentry-cli", "mode": "0755"}
    ready = play({"ansible.builtin.copy": program}, command(BUILD))
    assert all(not one["failed"] for results in ready.results.values() for one in results), ready.output
    told = {name: SETTINGS[name] for name in ("sentry_url", "sentry_upload_token")}
    told |= {"folder": "/var/tmp/build", "project": "shop", "release": "shop@7", "uploader": "all"}
    (folder / "told.json").write_text(json.dumps(told), "utf-8")
    runbook = ROLE.parents[1] / "playbooks" / "runbooks" / "upload_source_maps.yml"
    return run_playbook(runbook, "--inventory", inventory(), "--become", "--extra-vars", f"@{folder / 'told.json'}")


def test_source_maps_are_uploaded_by_the_runbook(host: Host, uploaded: Played) -> None:
    assert uploaded.code == 0, uploaded.output
    assert SETTINGS["sentry_upload_token"] not in uploaded.output
    database = "sqlite3.connect('file:/var/lib/bugsink/db.sqlite3?mode=ro', uri=True)"
    count = f"import sqlite3; print({database}.execute('select count(*) from files_filemetadata').fetchone()[0])"
    assert until(lambda: int(host.check_output(f"python3 -c {shlex.quote(count)}")) >= 2)
    assert host.run("find /tmp -name '*.properties' | grep .").rc == 1, "the token is taken away"


# --- the host --------------------------------------------------------------------------------------------------------


def test_it_listens_for_nginx_only(host: Host) -> None:
    listening = {line.split()[3] for line in host.check_output("ss -Hltn").splitlines()}
    assert {one for one in listening if one.endswith(":8010")} == {"127.0.0.1:8010"}


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_shut_in(host: Host, unit: str) -> None:
    level = host.check_output(f"systemd-analyze security {unit}.service").splitlines()[-1]
    assert float(level.split(":")[1].split()[0]) < 3, level


def test_the_proof_has_left_its_figure(host: Host) -> None:
    figures = host.file("/var/lib/prometheus/node-exporter/production_errors.prom")
    assert figures.mode == 0o644
    last = float(figures.content_string.splitlines()[-1].split()[1])
    assert abs(float(host.check_output("date +%s")) - last) < 1800
    assert host.check_output("systemctl is-enabled sentry-proof.timer bugsink-copy.timer").split() == ["enabled"] * 2


def test_a_consistent_copy_is_made_for_backups(host: Host) -> None:
    host.check_output("systemctl start bugsink-copy.service")
    copy = host.file("/var/lib/bugsink/copy/db.sqlite3")
    assert (copy.user, copy.mode) == ("bugsink", 0o600)
    script = "import sqlite3; print(sqlite3.connect('file:/var/lib/bugsink/copy/db.sqlite3?mode=ro', uri=True)"
    script += ".execute('pragma integrity_check').fetchone()[0])"
    assert host.check_output(f"python3 -c {shlex.quote(script)}").strip() == "ok"


def test_secrets_are_not_lying_about(host: Host) -> None:
    secrets = ["canary", "5c0ffee5d1e2f3a4", "0f5e1b7a9c3d2e4f"]
    words = " ".join(f"-e {one}" for one in secrets)
    for path in ("bugsink/secrets.json", "sentry-proof/key.json", "bugsink/declared.json"):
        assert host.file(f"/etc/{path}").mode == 0o600
    # The keys before and after are no secret that would let anybody read; they are in one file for Bugsink itself.
    lying = host.run(f"grep -rlE {words.replace('-e canary', '-e canary-')} /etc /usr/local /run/bugsink* 2>/dev/null")
    readable = [one for one in lying.stdout.split() if host.file(one).mode & 0o004]
    assert [one for one in readable if not one.startswith(("/etc/nginx", "/etc/bugsink/production.json"))] == []
    assert not any(one in host.check_output("ps -eo args | grep -v grep") for one in secrets)
    assert not any(one in host.check_output("cat /proc/[0-9]*/environ | tr '\\0' '\\n'") for one in secrets)
    journal = host.check_output("journalctl -u 'bugsink*' --no-pager")
    assert not any(one in journal for one in secrets)


def test_programs_can_be_used_by_others(host: Host) -> None:
    """What root makes under its own umask could be closed to all others."""
    closed = "find /opt/bugsink \\( -type d -not -perm -0755 -o -type f -not -perm -0444 \\) | head -3"
    assert host.check_output(closed) == ""
    assert host.check_output("find /opt/bugsink -perm /022 -not -type l | head -3") == ""


# --- changes ---------------------------------------------------------------------------------------------------------

DRIFT = """
import sqlite3
with sqlite3.connect("/var/lib/bugsink/db.sqlite3") as one:
    one.execute("update projects_project set sentry_key = '00000000000000000000000000000000' where id = 2")
    one.execute("delete from alerts_messagingserviceconfig")
    one.execute("delete from bsmain_authtoken")
    one.execute("update projects_projectmembership set send_email_alerts = 0")
"""


@pytest.fixture(scope="module")
def healed() -> Played:
    """Hands change what is declared, and the next runs see it."""
    drift = command(f"setpriv --reuid bugsink --regid bugsink --clear-groups python3 -c {shlex.quote(DRIFT)}")
    dry = role(SETTINGS, apply={"check_mode": True})
    played = play(drift, dry, role(SETTINGS), role(SETTINGS))
    assert played.code == 0, played.output
    return played


def test_what_hands_have_changed_is_healed(host: Host, healed: Played) -> None:
    dry, done, again = of_role(healed.results[host.backend.host])
    assert (dry["changed"], done["changed"], again["changed"]) == (True, True, False)
    assert done["commands"] == ["/usr/bin/python3 -I /usr/local/lib/bugsink.py declare"]


def sent(words: str) -> dict[str, Any]:
    """A task that sends an error to the project 2 and waits until it can be read."""
    key = "import json; print(json.load(open('/etc/bugsink/declared.json'))['projects'][1]['key'])"
    send_it = (
        f'{PYTHON} -c {shlex.quote(APPLICATION)} "https://$(python3 -c {shlex.quote(key)})@errors.test/2" "{words}"'
    )
    look = f"python3 -c {shlex.quote(ASK)} 'issues/?project=2' | grep -q '{words}'"
    return command(f"{send_it} && for _ in $(seq 100); do {look} && exit 0; sleep 0.2; done; exit 1")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Changes that cannot work, one after the other; then an upgrade, and the way back."""
    folder = tmp_path_factory.mktemp("requirements")
    text = (ROLE / "files" / "bugsink.txt").read_text("utf-8")
    wrong, other = folder / "wrong.txt", folder / "other.txt"
    wrong.write_text(text.replace("sha256:9", "sha256:8"), "utf-8")
    other.write_text(f"# The same, in other words.\n{text}", "utf-8")
    state = command("cat /var/lib/bugsink-copies/migrated; systemctl is-active bugsink bugsink-snappea")
    listed = command(f"python3 -c {shlex.quote(ASK)} 'issues/?project=2'")
    odd = {"ALERTS_WEBHOOK_OUTBOUND_MODE": "perhaps"}
    taken = [{**SETTINGS["sentry_projects"][0], "number": 3}]
    return play(
        state,
        role(changed(sentry_settings=odd)),
        role(changed(sentry_requirements=str(wrong))),
        role(changed(sentry_projects=taken)),
        state,
        # New programs and a copy of the database are there when Bugsink finds its configuration wrong.
        role(changed(sentry_requirements=str(other), sentry_settings=odd)),
        state,
        role(SETTINGS),
        sent("before the upgrade"),
        role(changed(sentry_requirements=str(other))),
        sent("after the upgrade"),
        listed,
        role(SETTINGS),
        listed,
        command("bugsink-production go-back"),
        role(SETTINGS),
        listed,
        seconds=900,
    )


def test_what_does_not_work_is_undone(host: Host, history: Played) -> None:
    results = history.results[host.backend.host]
    odd, wrong, taken, upgrade, last = of_role(results)[:5]
    for result, words in (
        (odd, "ALERTS_WEBHOOK_OUTBOUND_MODE must be one of"),
        (wrong, "DO NOT MATCH THE HASHES"),
        (taken, "3 is the number of the project other already"),
        (upgrade, "ALERTS_WEBHOOK_OUTBOUND_MODE must be one of"),
    ):
        assert result["failed"]
        assert words in result["msg"]
        assert "The former configuration is back and in force" in result["msg"]
    states = [one["stdout"] for one in results if "is-active" in str(one.get("cmd"))]
    assert [state.split()[-2:] for state in states] == [["active", "active"]] * 3
    assert len(set(states)) == 1, "no other programs work with the database"
    assert (last["failed"], last["paths"]) == (False, [])


def test_an_upgrade_keeps_all_events_and_there_is_a_way_back(host: Host, history: Played) -> None:
    results = history.results[host.backend.host]
    upgrade, refused, back = of_role(results)[5:]
    assert (upgrade["failed"], upgrade["changed"]) == (False, True)
    assert refused["failed"]
    assert "bugsink-production go-back" in refused["msg"]
    assert (back["failed"], back["changed"]) == (False, True)
    asking = [one for one in results if "issues/?project=2" in str(one.get("cmd")) and "grep" not in str(one["cmd"])]
    upgraded, still, former = (one["stdout"] for one in asking)
    for found in (upgraded, still, former):
        assert "before the upgrade" in found
    assert "after the upgrade" in upgraded
    assert "after the upgrade" in still
    assert "after the upgrade" not in former


def test_a_proof_that_is_too_old_is_none(host: Host) -> None:
    """The role asks for that in each run, and has the server begin anew where it is so."""
    proven = "python3 -I /usr/local/lib/sentry-proof.py proven"
    host.check_output("touch -d '2 days ago' /etc/sentry-proof/*; systemctl start sentry-proof.service")
    assert host.run(proven).rc == 0
    began = host.check_output("systemctl show --value --property ActiveEnterTimestampMonotonic bugsink.service")
    assert int(began) > 0
    host.check_output("echo 1 > /var/lib/sentry-proof/found")
    assert "no test event has been found since" in host.run(proven).stdout
    host.check_output("systemctl start sentry-proof.service")
    assert host.run(proven).rc == 0
