"""Options away from their defaults: another database, a server elsewhere, and Sentry itself where it cannot run."""

from __future__ import annotations

import base64
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.fushuma.production.plugins.filter.sentry import sentry_model
from plays import Played, Result, play
from testinfra.host import Host

ROOT = Path(__file__).parents[3]
ARCHIVE = ROOT / "roles" / "sentry" / "files" / "bugsink.txt"
PASSWORD = "canary-tracker-5e8a1b60c3"


def settings_of() -> dict[str, Any]:
    found = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
    release = {"release": "26.8.0", "archive": str(ARCHIVE), "checksum": "a1" * 32}
    itself = {**found["sentry_self_hosted"], "releases": [release]}
    return {**found, "sentry_requirements": str(ARCHIVE), "sentry_self_hosted": itself}


SETTINGS = settings_of()


def role(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"ansible.builtin.include_role": {"name": "fushuma.production.sentry"}, "vars": settings}


def changed(**settings: Any) -> dict[str, Any]:
    return {**deepcopy(SETTINGS), **settings}


def of_role_only(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name.startswith("sentry_")}


def of_role(results: Sequence[Result]) -> list[Result]:
    return [one for one in results if "paths" in one or (one["failed"] and "sentry:" in str(one.get("msg")))]


def sql(host: Host, text: str) -> str:
    return str(host.check_output(f"mariadb -N errors -e {shlex.quote(text)}")).strip()


def command(script: str) -> dict[str, Any]:
    return {"ansible.builtin.command": {"argv": ["sh", "-c", script]}}


def test_the_data_is_in_the_database(host: Host) -> None:
    projects = sql(host, "SELECT id, name FROM projects_project ORDER BY id").split("\n")
    assert projects == ["2\tshop", "7\tproof"]
    assert sql(host, "SELECT name FROM teams_team") == "makers"
    assert int(sql(host, "SELECT COUNT(*) FROM events_event WHERE project_id = 7")) >= 1
    assert not host.file("/var/lib/bugsink/db.sqlite3").exists


def test_settings_have_arrived(host: Host) -> None:
    told = json.loads(host.file("/etc/bugsink/production.json").content_string)
    assert told["bugsink"]["SITE_TITLE"] == "Errors of all"
    assert told["bugsink"]["MAX_EVENTS_PER_HOUR"] == 200
    assert told["bugsink"]["MAX_EVENT_AGE_DAYS"] == 30
    assert told["bugsink"]["MAX_EMAILS_PER_HOUR"] == 5
    assert told["bugsink"]["ALERTS_WEBHOOK_DENY_NON_GLOBAL"] is True
    assert told["mail"]["from"] == "errors@mail.test"
    listening = {line.split()[3] for line in host.check_output("ss -Hltn").splitlines()}
    assert "0.0.0.0:8011" in listening
    workers = host.check_output("pgrep --full --count '[b]ugsink.wsgi'")
    assert workers.strip() == "4", "three, and who minds them"
    limit = host.check_output("systemctl show --value --property MemoryMax bugsink.service")
    assert limit.strip() == str(384 * 1024**2)
    assert host.file("/var/lib/figures/production_errors.prom").exists
    asked = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8011/accounts/login/').read().decode())"
    assert "Errors of all" in host.check_output(f"python3 -c {shlex.quote(asked)}")
    assert "OnUnitActiveSec=5min" in host.file("/etc/systemd/system/sentry-proof.timer").content_string


def test_the_password_is_not_lying_about(host: Host) -> None:
    words = f"-e {PASSWORD} -e canary-mail -e canary-rpc"
    found = host.run(f"grep -rl {words} /etc /usr/local /run /var/lib/bugsink 2>/dev/null").stdout.split()
    places = {f"/run/{unit}/secrets.json" for unit in ("bugsink", "bugsink-snappea")}
    assert set(found) == {"/etc/bugsink/secrets.json", *places}
    assert all(not host.file(path).mode & 0o077 for path in found)
    assert PASSWORD not in host.check_output("ps -eo args | grep -v grep")
    assert "canary-" not in host.check_output("journalctl -u 'bugsink*' -u 'sentry*' --no-pager")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """An upgrade that fails after the database was changed; Sentry itself; a server elsewhere; and back."""
    other = tmp_path_factory.mktemp("requirements") / "other.txt"
    other.write_text(f"# The same, in other words.\n{ARCHIVE.read_text('utf-8')}", "utf-8")
    state = command(
        "cat /var/lib/bugsink-copies/migrated; mariadb -N errors -e 'SELECT COUNT(*) > 0 FROM events_event';"
        " systemctl is-active bugsink bugsink-snappea"
    )
    odd = {"ALERTS_WEBHOOK_OUTBOUND_MODE": "perhaps"}
    elsewhere = {
        "sentry_mode": "external",
        "sentry_projects": [{"name": "shop", "dsn": "http://0123456789abcdef0123456789abcdef@127.0.0.1:8099/7"}],
    }
    silent = {**elsewhere, "sentry_projects": [{"name": "shop", "dsn": "http://0123456789abcdef@127.0.0.1:9/7"}]}
    taken = command("cat /srv/inbox/told; systemctl is-enabled bugsink; cat /var/lib/figures/*.prom")
    return play(
        state,
        role(changed(sentry_requirements=str(other), sentry_settings=odd)),
        state,
        role(changed(sentry_mode="self_hosted")),
        state,
        role(changed(**silent, sentry_proof={"patience": 1})),
        role(changed(**elsewhere)),
        role(changed(**elsewhere)),
        taken,
        role(SETTINGS),
        state,
        seconds=900,
    )


def test_a_changed_database_is_put_back(host: Host, played: Played) -> None:
    results = played.results[host.backend.host]
    upgrade = of_role(results)[0]
    assert upgrade["failed"]
    assert "ALERTS_WEBHOOK_OUTBOUND_MODE" in upgrade["msg"]
    assert "The former configuration is back and in force" in upgrade["msg"]
    states = [one["stdout"] for one in results if "bugsink-copies" in str(one.get("cmd"))]
    assert states[0] == states[1] == states[2] == states[3]
    assert states[0].split()[-3:] == ["1", "active", "active"]


def test_sentry_itself_is_refused_where_it_cannot_run(host: Host, played: Played) -> None:
    refused = of_role(played.results[host.backend.host])[1]
    assert refused["failed"]
    assert "this host cannot run Sentry (" in refused["msg"]
    assert "it has no Docker" in refused["msg"]
    assert "Nothing was changed" in refused["msg"]


@pytest.mark.skipif(not os.environ.get("SENTRY_ARCHIVE"), reason="SENTRY_ARCHIVE: the archive of self-hosted 26.8.0")
def test_compose_accepts_what_is_written_for_sentry_itself(host: Host) -> None:
    """With Debian 13's Compose, which reads the file though Sentry's installer asks for a newer one."""
    if host.system_info.release.partition(".")[0] != "13":
        pytest.skip("Debian 12 has a Compose that does not know the file's words")
    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends docker-compose")
    tree = "/var/tmp/self-hosted"
    packed = base64.b64encode(Path(os.environ["SENTRY_ARCHIVE"]).read_bytes()).decode()
    host.check_output(f"mkdir -p {tree}")
    for number in range(0, len(packed), 90000):
        host.check_output(f"printf %s {packed[number : number + 90000]} >> {tree}.b64")
    host.check_output(f"base64 -d {tree}.b64 | tar xz --strip-components 1 -C {tree}")
    environment = sentry_model(of_role_only(changed(sentry_mode="self_hosted")))["environment"]
    host.check_output(f"printf %s {shlex.quote(environment)} > {tree}/.env.custom")
    compose = f"cd {tree} && docker-compose --env-file .env --env-file .env.custom config"
    host.check_output(f"{compose} --quiet")
    services = host.check_output(f"{compose} --services").split()
    assert len(services) > 40, "all that Sentry can do"
    shown = host.check_output(compose)
    assert "host_ip: 0.0.0.0" in shown
    assert "supersecret" not in shown


def test_a_server_elsewhere_has_to_take_errors(host: Host, played: Played) -> None:
    results = played.results[host.backend.host]
    silent, taken, again, last = of_role(results)[2:]
    assert silent["failed"]
    assert "no test event has been found" in silent["msg"]
    assert (taken["failed"], taken["changed"], again["changed"]) == (False, True, False)
    told = next(one["stdout"] for one in results if "inbox" in str(one.get("cmd")))
    assert "/api/7/envelope/" in told
    assert "Errors arrive" in told
    assert "disabled" in told, "Bugsink rests"
    assert "production_errors_canary_timestamp_seconds" in told
    assert not last["failed"]
