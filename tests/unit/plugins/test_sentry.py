# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the sentry role: those that cannot work, what the others mean, and the programs on the host."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.filter import sentry as plugin
from ansible_collections.fushuma.production.plugins.plugin_utils import sentry_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences
from ansible_collections.fushuma.production.plugins.plugin_utils.sentry import problems

OPTIONS = specs.role_options("sentry")
SECRET = "canary-1f0e9d8c7b6a"
KEY = "0123456789abcdef" * 2
BASE = {
    "sentry_mode": "bugsink",
    "sentry_url": "https://errors.fushuma.com",
    "sentry_secret_key": SECRET,
    "sentry_admin": {"email": "operator@fushuma.com", "password": SECRET},
}
SHOP = {"name": "shop", "number": 2, "application": "shop"}
MAIL = {"host": "mail.fushuma.com"}
RELEASE = {"release": "26.8.0", "checksum": "a" * 64}
SELF = {**BASE, "sentry_mode": "self_hosted", "sentry_self_hosted": {"releases": [RELEASE], "rpc_secret": SECRET}}


def said(given: dict[str, Any]) -> list[str]:
    assert not specs.problems(OPTIONS, given), "the shape is wrong already"
    return sentences(problems(specs.filled(OPTIONS, given)))


def bugsink(**settings: Any) -> dict[str, Any]:
    return {**BASE, **settings}


def project(**settings: Any) -> dict[str, Any]:
    return bugsink(sentry_projects=[{**SHOP, **settings}], sentry_mail=MAIL)


def external(*projects: dict[str, Any]) -> dict[str, Any]:
    return {"sentry_mode": "external", "sentry_projects": list(projects)}


def self_hosted(**settings: Any) -> dict[str, Any]:
    return {**SELF, "sentry_self_hosted": {**SELF["sentry_self_hosted"], **settings}}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sentry_projects": [{"name": "Nobody Judges", "number": -1}]},
        bugsink(),
        bugsink(sentry_addresses=["10.0.1.31", "::1"], sentry_from=["10.0.0.0/8"]),
        bugsink(sentry_database={"kind": "mariadb", "password": SECRET}),
        bugsink(sentry_settings={"SITE_TITLE": "Errors"}, sentry_upload_token="a1b2" * 10),
        bugsink(sentry_requirements=str(model.REQUIREMENTS)),
        bugsink(sentry_mail={**MAIL, "user": "errors", "password": SECRET, "from": "errors@fushuma.com"}),
        project(),
        project(key=KEY, former_key=KEY[::-1]),
        project(
            alerts=[{"kind": "mail", "to": "team@fushuma.com"}, {"kind": "slack", "url": "https://hooks.slack.com/x"}]
        ),
        external(),
        external({"name": "shop", "dsn": f"https://{KEY}@o1.ingest.sentry.io/450"}),
        SELF,
        self_hosted(releases=[{**RELEASE, "release": "25.5.1"}, {**RELEASE, "archive": str(model.REQUIREMENTS)}]),
        self_hosted(releases=[{**RELEASE, "archive": "https://mirror.fushuma.com/sentry.tar.gz"}]),
    ],
)
def test_settings_that_work(settings: dict[str, Any]) -> None:
    assert said(settings) == []


@pytest.mark.parametrize(
    ("settings", "setting", "why"),
    [
        (bugsink(sentry_url="http://errors.fushuma.com"), "sentry_url", "over TLS"),
        (bugsink(sentry_url="https://[errors"), "sentry_url", "over TLS"),
        (bugsink(sentry_port=0), "sentry_port", "ports go from 1"),
        (bugsink(sentry_secret_key=""), "sentry_secret_key", "sessions are signed"),
        (bugsink(sentry_admin={"password": SECRET}), "sentry_admin.email", "somebody has to be the admin"),
        (bugsink(sentry_admin={"email": "a@b"}), "sentry_admin.password", "nobody may be the admin"),
        (bugsink(sentry_organisation=" "), "sentry_organisation", "projects belong to one"),
        (bugsink(sentry_mail={**MAIL, "from": "nobody"}), "sentry_mail.from", "it is no address"),
        (bugsink(sentry_mail={**MAIL, "user": "errors"}), "sentry_mail.password", "a name and a password"),
        (bugsink(sentry_mail={**MAIL, "password": SECRET}), "sentry_mail.user", "a name and a password"),
        (bugsink(sentry_addresses=[]), "sentry_addresses", "it would listen nowhere"),
        (bugsink(sentry_memory="100mb"), "sentry_memory", "less than Bugsink begins with"),
        (bugsink(sentry_limits={"files": "much"}), "sentry_limits.files", "it is no size"),
        (bugsink(sentry_limits={"days": 0}), "sentry_limits.days", "less than one"),
        (bugsink(sentry_workers=0), "sentry_workers", "less than one"),
        (bugsink(sentry_proof={"minutes": 0}), "sentry_proof.minutes", "less than one"),
        (bugsink(sentry_database={"kind": "mariadb"}), "sentry_database.password", "nobody is let in"),
        (
            bugsink(sentry_database={"kind": "mariadb", "password": f'{SECRET}"'}),
            "sentry_database.password",
            "end it too early",
        ),
        (
            bugsink(sentry_database={"kind": "mariadb", "password": SECRET, "name": "a b"}),
            "sentry_database.name",
            "no plain name",
        ),
        (bugsink(sentry_upload_token="A1b2" * 10), "sentry_upload_token", "40 hexadecimal digits"),
        (bugsink(sentry_requirements="/nowhere"), "sentry_requirements", "--require-hashes"),
        (bugsink(sentry_requirements=__file__), "sentry_requirements", "does not pin Bugsink"),
        (bugsink(sentry_settings={"BASE_URL": "x"}), "sentry_settings.BASE_URL", "another setting decides"),
        (bugsink(sentry_settings={"PHONEHOME": True}), "sentry_settings.PHONEHOME", "nothing is told to others"),
        (bugsink(sentry_settings={"site": 1}), "sentry_settings.site", "upper-case"),
        (bugsink(sentry_projects=[SHOP, {**SHOP, "number": 3}]), "sentry_projects[1].name", "has it already"),
        (bugsink(sentry_projects=[SHOP, {**SHOP, "name": "b"}]), "sentry_projects[1].number", "has it already"),
        (project(name="The Shop"), "sentry_projects[0].name", "a part of addresses"),
        (project(number=0), "sentry_projects[0].number", "a part of the DSN"),
        (project(number=1), "sentry_projects[0].number", "the project of the test event"),
        (project(name="proof"), "sentry_projects[0].number", "the project of the test event"),
        (project(dsn="https://a@b/1"), "sentry_projects[0].dsn", "it follows from"),
        (project(events=0), "sentry_projects[0].events", "nothing would be kept"),
        (project(key=KEY.upper()), "sentry_projects[0].key", "32 hexadecimal digits"),
        (project(key=KEY, former_key=KEY), "sentry_projects[0].former_key", "the present one"),
        (project(alerts=[{"kind": "mail"}]), "sentry_projects[0].alerts[0].to", "it is no address"),
        (project(alerts=[{"kind": "slack"}]), "sentry_projects[0].alerts[0].url", "nothing can be sent"),
        (
            project(alerts=[{"kind": "webhook", "url": "https://[x"}]),
            "sentry_projects[0].alerts[0].url",
            "nothing can be sent",
        ),
        (
            bugsink(sentry_projects=[{**SHOP, "alerts": [{"kind": "mail", "to": "a@b.c"}]}]),
            "sentry_projects[0].alerts[0].kind",
            "no server that would send it",
        ),
        (external({"name": "shop"}), "sentry_projects[0].dsn", "it is no DSN"),
        (external({"name": "shop", "dsn": "https://[x/1"}), "sentry_projects[0].dsn", "it is no DSN"),
        (
            external({"name": "shop", "dsn": "https://a@b/1", "alerts": [{"kind": "mail"}]}),
            "sentry_projects[0].alerts",
            "the other server decides",
        ),
        ({**SELF, "sentry_projects": [{**SHOP, "former_key": KEY}]}, "sentry_projects[0].former_key", "several keys"),
        (
            {**SELF, "sentry_projects": [{**SHOP, "alerts": [{"kind": "slack", "url": "https://a.b/c"}]}]},
            "sentry_projects[0].alerts[0].kind",
            "integrations",
        ),
        (self_hosted(releases=[]), "sentry_self_hosted.releases", "nothing to install"),
        (self_hosted(rpc_secret=""), "sentry_self_hosted.rpc_secret", "everybody knows"),
        (self_hosted(disk="much"), "sentry_self_hosted.disk", "it is no size"),
        (
            self_hosted(releases=[{**RELEASE, "release": "nightly"}]),
            "sentry_self_hosted.releases[0].release",
            "it is no release",
        ),
        (
            self_hosted(releases=[RELEASE, {**RELEASE, "release": "25.5.1"}]),
            "sentry_self_hosted.releases[1].release",
            "an older one",
        ),
        (
            self_hosted(releases=[{**RELEASE, "checksum": "abc"}]),
            "sentry_self_hosted.releases[0].checksum",
            "it is no SHA-256",
        ),
        (
            self_hosted(releases=[{**RELEASE, "archive": "/nowhere.tar.gz"}]),
            "sentry_self_hosted.releases[0].archive",
            "no such file",
        ),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], setting: str, why: str) -> None:
    (sentence,) = said(settings)
    assert sentence.startswith(f"{setting} is ")
    assert why in sentence
    assert SECRET not in sentence


# --- what is told to others ------------------------------------------------------------------------------------------


def test_a_dsn_follows_from_the_settings() -> None:
    (one,) = plugin.sentry_dsns(project(key=KEY))
    assert one == {
        "project": "shop",
        "application": "shop",
        "dsn": f"https://{KEY}@errors.fushuma.com/2",
        "security": f"https://errors.fushuma.com/api/2/security/?sentry_key={KEY}",
        "environment": "production",
    }
    derived = plugin.sentry_dsns(project())[0]["dsn"]
    assert derived == plugin.sentry_dsns(project())[0]["dsn"], "the same every time"
    assert derived != plugin.sentry_dsns({**project(), "sentry_secret_key": SECRET[::-1]})[0]["dsn"]
    assert plugin.sentry_dsns({"sentry_projects": [SHOP]}) == []


def test_a_dsn_of_another_server_is_as_it_was_given() -> None:
    (one,) = plugin.sentry_dsns(external({"name": "shop", "dsn": f"https://{KEY}@o1.ingest.sentry.io/450"}))
    assert one["dsn"] == f"https://{KEY}@o1.ingest.sentry.io/450"
    assert one["security"] == f"https://o1.ingest.sentry.io/api/450/security/?sentry_key={KEY}"


def test_wrong_shapes_are_told() -> None:
    for work in (plugin.sentry_dsns, plugin.sentry_model):
        with pytest.raises(AnsibleFilterError, match="sentry_"):
            work({"sentry_mode": "perhaps"})
    with pytest.raises(AnsibleFilterError, match="nowhere"):
        plugin.sentry_model(bugsink(sentry_requirements="/nowhere"))
    assert set(plugin.FilterModule().filters()) == {"sentry_model", "sentry_dsns"}


# --- what is written -------------------------------------------------------------------------------------------------


def test_bugsink() -> None:
    alerts = [{"kind": "mail", "to": "team@fushuma.com"}, {"kind": "webhook", "url": "https://a.b/c"}]
    given = project(key=KEY, former_key=KEY[::-1], alerts=alerts)
    made = plugin.sentry_model({**given, "sentry_upload_token": "a1b2" * 10, "sentry_addresses": ["::1", "10.0.0.1"]})
    assert made["programs"].startswith("/opt/bugsink/2.")
    assert made["packages"] == ["python3-venv"]
    assert made["binds"] == ["[::1]", "10.0.0.1"]
    production = json.loads(made["public"][0]["content"])
    assert production["former_keys"] == {"2": {"former": KEY[::-1], "key": KEY}}
    assert production["bugsink"]["PHONEHOME"] is False
    assert production["bugsink"]["ALERTS_WEBHOOK_DENY_NON_GLOBAL"] is True
    assert production["mail"]["from"] == "errors@errors.fushuma.com"
    assert production["hosts"] == ["errors.fushuma.com", "localhost", "127.0.0.1", "[::1]", "10.0.0.1"]
    assert SECRET not in made["public"][0]["content"]
    declared = json.loads(made["declared"])
    proof, shop = declared["projects"]
    assert (proof["number"], proof["alerts"], proof["events"]) == (1, False, 100)
    assert shop["services"] == [{"kind": "custom", "url": "https://a.b/c"}]
    assert shop["mails"] == ["team@fushuma.com"]
    assert [one["name"] for one in declared["tokens"]] == ["proof", "upload"]
    told, key = json.loads(made["proof"]["public"]), json.loads(made["proof"]["secret"])
    assert (told["unit"], told["number"], told["tls"]) == ("bugsink.service", 1, False)
    assert key == {"key": proof["key"], "token": declared["tokens"][0]["token"]}


def test_another_database_needs_other_packages() -> None:
    made = plugin.sentry_model(bugsink(sentry_database={"kind": "mariadb", "password": SECRET, "host": "10.0.0.2"}))
    assert made["packages"] == ["python3-venv", "python3-mysqldb", "mariadb-client"]
    programs = json.loads(made["programs_file"])
    assert programs["system_packages"] is True
    assert (programs["database"]["kind"], programs["database"]["host"]) == ("mariadb", "10.0.0.2")
    alone = json.loads(plugin.sentry_model(bugsink())["programs_file"])["database"]
    assert {key: value for key, value in alone.items() if value} == {"kind": "sqlite"}
    assert json.loads(made["secrets"])["db"] == SECRET


def test_other_requirements_get_a_folder_of_their_own(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("# other\n" + model.REQUIREMENTS.read_text("utf-8"), "utf-8")
    assert (
        plugin.sentry_model(bugsink(sentry_requirements=str(other)))["programs"]
        != plugin.sentry_model(BASE)["programs"]
    )


def test_the_pinned_requirements_are_of_one_release_and_whole() -> None:
    text = model.REQUIREMENTS.read_text("utf-8")
    pins = [line for line in text.splitlines() if not line.startswith((" ", "#"))]
    assert all("==" in line and line.endswith("\\") for line in pins)
    assert len(pins) > 30


def test_a_server_elsewhere_is_sent_the_test_event() -> None:
    made = plugin.sentry_model(external({"name": "shop", "dsn": f"https://{KEY}@o1.ingest.sentry.io/sub/450"}))
    told = json.loads(made["proof"]["public"])
    assert (told["address"], told["port"], told["folder"], told["number"], told["tls"]) == (
        "o1.ingest.sentry.io",
        443,
        "/sub",
        450,
        True,
    )
    assert json.loads(made["proof"]["secret"]) == {"key": KEY, "token": ""}
    assert plugin.sentry_model(external()) == {"proof": {}}
    assert plugin.sentry_model({}) == {}
    plain = plugin.sentry_model(external({"name": "shop", "dsn": "http://a@127.0.0.1:9099/7"}))
    assert json.loads(plain["proof"]["public"])["port"] == 9099


def test_sentry_itself() -> None:
    made = plugin.sentry_model(
        self_hosted(releases=[{**RELEASE, "release": "25.5.1"}, {**RELEASE, "archive": "/srv/sentry.tar.gz"}])
    )
    steps = json.loads(made["steps"])["steps"]
    assert steps[0]["archive"] == "https://github.com/getsentry/self-hosted/archive/refs/tags/25.5.1.tar.gz"
    assert steps[1]["archive"] == "/opt/sentry/archives/26.8.0.tar.gz"
    assert made["archives"] == [{"release": "26.8.0", "source": "/srv/sentry.tar.gz"}]
    assert f"LAUNCHPAD_RPC_SHARED_SECRET={SECRET}\n" in made["environment"]
    assert "COMPOSE_PROFILES=errors-only\n" in made["environment"]
    assert "SENTRY_BIND=127.0.0.1:8010\n" in made["environment"]
    assert json.loads(made["declared"])["tokens"] == []


# --- the programs on the host ----------------------------------------------------------------------------------------


def program(name: str) -> ModuleType:
    path = specs.ROLES / "sentry" / "files" / name
    spec = importlib.util.spec_from_file_location(f"sentry_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = program("self_hosted.py")
    monkeypatch.setattr(found, "CONFIG", tmp_path)
    monkeypatch.setattr(found, "FOLDER", tmp_path)
    return found


def steps(folder: Path, *releases: str, now: str = "") -> None:
    listed = [{"release": one, "archive": "", "checksum": ""} for one in releases]
    (folder / "steps.json").write_text(json.dumps({"steps": listed, "profile": "errors-only", "disk": 1}), "utf-8")
    if now:
        (folder / "installed").write_text(f"{now}\n", "utf-8")


@pytest.mark.parametrize(
    ("now", "releases", "words"),
    [
        ("", ["26.8.0"], ""),
        ("26.7.0", ["26.8.0"], ""),
        ("24.8.0", ["25.5.1", "26.8.0"], ""),
        ("24.8.0", ["26.8.0"], "by way of 25.5.1"),
        ("23.6.2", ["24.8.0", "26.8.0"], "by way of 23.11.0, 25.5.1"),
        ("26.8.0", ["26.7.0"], "no upgrade goes back"),
    ],
)
def test_no_release_is_left_out_that_must_not_be(
    installer: ModuleType, tmp_path: Path, now: str, releases: list[str], words: str
) -> None:
    steps(tmp_path, *releases, now=now)
    found = "; ".join(installer.walk_problems())
    assert words in found if words else not found
    assert installer.installed() == (0 if now == releases[-1] else 1)
    if not words:
        coming = [one["release"] for one in installer.to_come()]
        assert coming == [one for one in releases if not now or installer.number(one) > installer.number(now)]


def test_a_host_that_is_too_small_is_refused_in_one_sentence(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(tmp_path, "26.8.0")
    monkeypatch.setattr(installer, "memory_of_host", lambda: 2 * 1000**3)
    monkeypatch.setattr(installer.os, "sched_getaffinity", lambda _pid: {0})
    monkeypatch.setattr(installer, "compose_problems", lambda: ["it has no Docker"])
    assert installer.main(["check"]) == 1
    told = capsys.readouterr().err.strip()
    for words in ("it has 1 CPUs, and 2 are needed", "2000 MB of memory, and 7000", "no Docker", "Nothing was changed"):
        assert words in told
    assert "\n" not in told


def test_an_archive_that_is_another_one_is_refused(installer: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"x")
    with pytest.raises(installer.Failure, match="has the checksum"):
        installer.archive({"release": "26.8.0", "archive": str(tmp_path / "x.tar.gz"), "checksum": "a" * 64})
