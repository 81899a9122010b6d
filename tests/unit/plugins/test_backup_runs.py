# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups from end to end against a restic that keeps copies: what is in a snapshot, and what a failure leaves."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import manifest, programs, runs, signals
from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import Settings, Source

from .backups import Host, made

COLLECTION = "ansible_collections.fushuma.production.plugins.module_utils.backup"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return made(tmp_path, monkeypatch)


@pytest.fixture
def settings(host: Host) -> Settings:
    """Of a host whose repositories are there."""
    found = host.settings()
    assert runs.init(found).problems == []
    return found


def of(settings: Settings, name: str = "near") -> dict[str, Any]:
    found: dict[str, Any] = signals.state(settings)["repositories"].get(name, {})
    return found


# --- init -------------------------------------------------------------------------------------------------------------


def test_repositories_are_made_once(host: Host) -> None:
    settings = host.settings()
    assert runs.opened(settings).problems == [
        f"Repository {name} was not yet opened with its password: production-backup init" for name in ("near", "far")
    ]
    assert runs.init(settings).values == {"repositories": {"near": "created", "far": "created"}}
    assert runs.init(settings).values == {"repositories": {"near": "opened", "far": "opened"}}
    assert runs.opened(settings).problems == []
    assert (settings.opened / "near.json").stat().st_mode & 0o777 == 0o600


def test_a_repository_that_is_gone_is_not_made_again(host: Host, settings: Settings) -> None:
    (host.root / "near" / "config").unlink()
    outcome = runs.init(settings)
    assert len(outcome.problems) == 1
    assert outcome.problems[0].startswith("Repository near is gone: this host has seen ")
    assert outcome.values["repositories"] == {"far": "opened"}, "the other one is opened all the same"
    assert not (host.root / "near" / "config").exists()


def test_another_repository_in_its_place(host: Host, settings: Settings) -> None:
    config = json.loads((host.root / "near" / "config").read_text())
    (host.root / "near" / "config").write_text(json.dumps({**config, "id": "f" * 64}))
    assert "Repository near is another one" in runs.init(settings).problems[0]


def test_a_password_that_changed_is_brought_in(host: Host, settings: Settings) -> None:
    (settings.folder / "near.password").write_text("next\n")
    assert runs.opened(settings).problems == [
        "Repository near was not yet opened with its password: production-backup init"
    ]
    assert runs.init(settings).values["repositories"]["near"] == "password"
    keys = json.loads((host.root / "near" / "config").read_text())["keys"]
    assert list(keys.values()) == ["next"], "the former one opens it no longer"
    assert runs.init(settings).values["repositories"]["near"] == "opened"
    assert not any("next" in " ".join(one) for one in host.calls()), "no password in a command line"


def test_a_former_password_goes_on_for_as_long_as_it_is_set(host: Host, settings: Settings) -> None:
    (settings.opened / "near.json").unlink()
    (settings.folder / "near.former-password").write_text("password of near\n")
    (settings.folder / "near.password").write_text("next\n")
    assert runs.init(settings).values["repositories"]["near"] == "password"
    keys = json.loads((host.root / "near" / "config").read_text())["keys"]
    assert sorted(keys.values()) == ["next", "password of near"]


def test_passwords_of_which_none_opens_it(host: Host, settings: Settings) -> None:
    (settings.folder / "near.password").write_text("wrong\n")
    (settings.folder / "near.former-password").write_text("wrong, too\n")
    (settings.opened / "near.json").unlink()
    assert "is opened neither by its password nor by a former one" in runs.init(settings).problems[0]
    (settings.folder / "near.former-password").unlink()
    assert "the password does not open it" in runs.init(settings).problems[0]


def test_what_fails_while_a_password_is_brought_in(host: Host, settings: Settings) -> None:
    (settings.folder / "near.password").write_text("next\n")
    wrong = "Fatal: wrong password or no key found"
    host.forced({"verb": "cat", "code": 1, "err": wrong}, {"verb": "cat", "code": 1, "err": "Fatal: no route to host"})
    assert "no route to host" in runs.init(settings).problems[0]


def test_a_password_file_that_is_not_there(host: Host, settings: Settings) -> None:
    (settings.folder / "near.password").unlink()
    with pytest.raises(programs.Failure, match=r"near\.password cannot be read: No such file"):
        runs.opened(settings)


# --- run --------------------------------------------------------------------------------------------------------------


def test_what_a_snapshot_has(host: Host, settings: Settings) -> None:
    before = time.time()
    outcome = runs.run(settings)
    assert outcome.problems == []
    assert set(outcome.values["repositories"]) == {"near", "far"}
    for name in ("near", "far"):
        [snapshot] = host.snapshots(name)
        assert snapshot["tags"] == ["production-backup", f"run={outcome.values['run']}"]
        assert snapshot["hostname"] == "web1"
        kept = host.manifest(name)
        assert before <= kept["started"] <= kept["finished"] <= time.time()
        assert kept["marker"] == 1795676400
        assert kept["versions"] == {"mariadb": "10.11.19-MariaDB", "restic": "0.14.0"}
        [database] = kept["databases"]
        rows = hashlib.sha256(b"(1,'one'),\n(2,'two'),\n").hexdigest()
        assert (database["name"], database["collation"]) == ("shop", "utf8mb4_unicode_ci")
        assert database["tables"] == {"goods": {"rows": 2, "sha256": rows}}
        assert (host.stage(name) / database["file"]).stat().st_size == database["bytes"]
        assert kept["redis"][0]["keys"] == 3
        assert [(one["path"], one["volume"], one["files"], one["bytes"]) for one in kept["paths"]] == [
            (str(host.root / "data"), "", 1, 7),
            (str(host.bin / "volumes" / "uploads"), "uploads", 1, 4),
        ]
        for one in kept["paths"]:
            root = host.stage(name).parents[len(settings.stage.parents) - 1]
            assert manifest.compare(host.stage(name) / one["listing"], root, time.time() + 1) == []
    assert not settings.stage.exists()
    assert of(settings)["exit_code"] == 0
    assert of(settings)["bytes_added"] == 5
    assert of(settings)["unproven"] == []


def test_dumps_are_for_root_alone(host: Host, settings: Settings) -> None:
    runs.run(settings)
    assert host.stage().stat().st_mode & 0o777 == 0o700


def test_hashes_of_files_that_did_not_change_are_not_worked_out_again(
    settings: Settings, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.run(settings)
    listings = sorted((host.stage() / "listings").iterdir())
    first = [one.read_bytes() for one in listings]
    monkeypatch.setattr(manifest, "_hash", lambda path: pytest.fail(f"{path} was read"))
    assert runs.run(settings).problems == []
    assert [(host.stage() / "listings" / one.name).read_bytes() for one in listings] == first


def test_snapshots_of_a_new_repository_are_counted_from_the_first_one(settings: Settings) -> None:
    none = 'production_backup_snapshots{repository="near"} 0\n'
    assert none in signals.metrics(settings, signals.state(settings)), "also before there is one"
    runs.run(settings)
    assert of(settings)["snapshots"] == 1


def test_snapshots_of_a_known_repository_are_counted_once_their_number_is_known(settings: Settings) -> None:
    settings.state.unlink()
    assert runs.init(settings).values["repositories"]["near"] == "opened"
    runs.run(settings)
    assert "snapshots" not in of(settings)
    runs.check(settings)
    assert of(settings)["snapshots"] == 1
    runs.run(settings)
    assert of(settings)["snapshots"] == 2


def test_no_more_calls_of_restic_than_backups(host: Host, settings: Settings) -> None:
    runs.run(settings)
    (host.bin / "log").unlink()
    runs.run(settings)
    assert [one[0] for one in host.calls()] == ["backup", "backup"]
    assert "--no-scan" not in host.calls()[0], "it does not know it"
    (host.bin / "new").touch()
    runs.run(settings)
    assert "--no-scan" in host.calls()[-1]


@pytest.mark.parametrize(
    ("made_so", "said"),
    [
        ("down", "MariaDB does not answer: ERROR 2002"),
        ("dies", "The mariadb database shop could not be dumped (exit code 2): mariadb-dump: Error 2013"),
        ("redis-down", "Redis instance cache does not answer INFO: Could not connect"),
    ],
)
def test_a_failing_dump_ends_the_run_before_restic(host: Host, settings: Settings, made_so: str, said: str) -> None:
    (host.bin / made_so).touch()
    outcome = runs.run(settings)
    assert said in outcome.problems[0]
    assert host.calls("backup") == []
    assert not settings.stage.exists()
    assert of(settings)["exit_code"] == 1
    assert "last_success" not in of(settings)


def test_a_dump_that_stops_without_an_error(host: Host, settings: Settings) -> None:
    (host.bin / "sql" / "shop.sql").write_text(SQL_CUT)
    assert "is not whole: it does not end as one" in runs.run(settings).problems[0]
    assert host.calls("backup") == []


SQL_CUT = "-- MariaDB dump\n\nLOCK TABLES `goods` WRITE;\n"


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ([], "backup_sources and backup_paths name nothing to back up"),
        ([{"kind": "path", "path": "/not/there"}], "Path /not/there cannot be backed up: No such file or directory"),
        ([{"kind": "volume", "volume": "gone"}], "Docker volume gone cannot be backed up: Error: No such volume: gone"),
        ([{"kind": "tape"}], "backup_sources has a source of kind tape, which nobody knows to back up"),
        ([{"kind": "mariadb", "databases": ["shop", "wine"]}], "MariaDB has no database wine"),
    ],
)
def test_sources_that_cannot_be_backed_up(
    host: Host, settings: Settings, sources: list[dict[str, Any]], said: str
) -> None:
    host.config["sources"] = sources
    assert runs.run(host.settings()).problems == [said]
    assert host.calls("backup") == []


def test_a_path_that_is_a_link(host: Host, settings: Settings) -> None:
    (host.root / "link").symlink_to(host.root / "data")
    with pytest.raises(programs.Failure, match=f"is a symbolic link.*: name {host.root}/data$"):
        runs.place(Source("path", path=str(host.root / "link")))


def test_no_repository_takes_backups(host: Host) -> None:
    host.config["repositories"] = []
    assert runs.run(host.settings()).problems == ["No repository has the purpose backup: nothing was backed up"]


def test_what_is_left_out(host: Host, settings: Settings) -> None:
    (host.root / "data" / "dump.sql").write_text("no")
    (host.root / "data" / "cache").mkdir()
    (host.root / "data" / "cache" / "x").write_text("no")
    host.config["exclude"] = ["*.sql", str(host.root / "data" / "cache")]
    assert runs.run(host.settings()).problems == []
    [data, _] = host.manifest()["paths"]
    assert (data["files"], data["folders"]) == (1, 1)
    excludes = [one for one in host.calls("backup")[-1] if one.startswith("--exclude=")]
    assert f"--exclude={host.root}/data/**/*.sql" in excludes, "and not the dumps"
    assert f"--exclude={settings.opened}" in excludes
    assert f"--exclude={host.root}/near" in excludes, "a repository is not backed up into itself"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{root}/var", "/var/stage, which has the dumps: exclude less than its folder"),
        ("{root}/data", "/data: take the path away or exclude less"),
        ("!keep", "backup_exclude has !keep, which takes back what another pattern leaves out: name that less"),
    ],
)
def test_what_may_not_be_left_out(host: Host, settings: Settings, pattern: str, said: str) -> None:
    host.config["exclude"] = [pattern.format(root=host.root)]
    assert said in runs.run(host.settings()).problems[0]
    assert host.calls("backup") == []


def test_a_repository_that_fails_keeps_no_other_from_its_backup(host: Host, settings: Settings) -> None:
    (host.root / "near" / "config").unlink()
    outcome = runs.run(settings)
    assert len(outcome.problems) == 1
    assert "Repository near: there is no repository (restic backup, exit code 1" in outcome.problems[0]
    assert len(host.snapshots("far")) == 1
    assert of(settings, "near")["exit_code"] == 1
    assert of(settings, "far")["exit_code"] == 0


def test_a_snapshot_that_is_not_whole_is_forgotten_and_made_again(host: Host, settings: Settings) -> None:
    host.forced({"verb": "backup", "code": 3, "after": True, "err": "error: open /data/x: permission denied"})
    lines: list[str] = []
    outcome = runs.run(settings, lines.append)
    assert outcome.problems == []
    assert len(host.snapshots()) == 1
    assert any("could not read all of the sources" in line for line in lines)


@pytest.mark.parametrize("append_only", [False, True])
def test_a_snapshot_that_is_not_whole_twice(host: Host, settings: Settings, append_only: bool) -> None:
    host.config["repositories"] = [{**host.config["repositories"][0], "append_only": append_only}]
    half = {"verb": "backup", "code": 3, "after": True, "err": "error: open /data/x: permission denied"}
    host.forced(half, half)
    outcome = runs.run(host.settings())
    assert "could not read all of the sources" in outcome.problems[0]
    assert len(host.snapshots()) == (2 if append_only else 0)
    assert of(settings)["exit_code"] == 3
    assert "last_success" not in of(settings)


def test_the_second_try_may_fail_in_another_way(host: Host, settings: Settings) -> None:
    half = {"verb": "backup", "code": 3, "after": True, "err": "error"}
    host.forced(half, {"verb": "backup", "code": 1, "err": "Fatal: disk is full"})
    assert "disk is full" in runs.run(settings).problems[0]
    assert host.snapshots() == []


def test_hooks(host: Host, settings: Settings) -> None:
    script = host.bin / "hook"
    script.write_text(
        f'#!/bin/sh\necho "$1 $PRODUCTION_BACKUP_RUN $(ls {host.root}/var)" >> {host.root}/hooked\nexit $2\n'
    )
    script.chmod(0o755)
    host.config["hooks"] = {"before": [[str(script), "before", "0"]], "after": [[str(script), "after", "0"]]}
    outcome = runs.run(host.settings())
    assert outcome.problems == []
    said = (host.root / "hooked").read_text().splitlines()
    assert [line.split()[:2] for line in said if line.startswith(("before", "after"))] == [
        ["before", outcome.values["run"]],
        ["after", outcome.values["run"]],
    ]

    host.config["hooks"]["after"][0][2] = "4"
    assert runs.run(host.settings()).problems == [f"Hook {script} failed (exit code 4): "]
    host.config["hooks"]["before"][0][2] = "5"
    outcome = runs.run(host.settings())
    assert [one[-4:] for one in outcome.problems] == ["5): ", "4): "], "what was stopped before is started again"
    assert len(host.snapshots()) == 2


def test_the_disk_is_full(host: Host, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(settings.stage))

    monkeypatch.setattr(runs.dumps, "_follow", full)
    assert "cannot be written to" in runs.run(settings).problems[0]
    assert not settings.stage.exists()
    monkeypatch.setattr(runs, "_stage", full)
    assert "No space left on device" in runs.run(settings).problems[0]


def test_room_is_made_before_a_failure_is_noted(
    host: Host, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that the dumps have filled, nothing can be written as long as they are there."""
    (host.bin / "dies").touch()
    record = signals.record_all

    def on_a_full_disk(*args: Any) -> None:
        assert not settings.stage.exists()
        record(*args)

    monkeypatch.setattr(signals, "record_all", on_a_full_disk)
    assert "could not be dumped" in runs.run(settings).problems[0]
    assert of(settings)["exit_code"] == 1


def test_all_databases(host: Host, settings: Settings) -> None:
    (host.bin / "sql" / "wine.sql").write_text("-- Dump completed\n")
    (host.bin / "sql" / "production_backup.sql").write_text("-- Dump completed\n")
    host.config["sources"] = [{"kind": "mariadb", "databases": ["wine"]}, {"kind": "mariadb", "databases": ["wine"]}]
    assert runs.run(host.settings()).problems == []
    assert [one["name"] for one in host.manifest()["databases"]] == ["production_backup", "wine"]
    host.config["sources"].append({"kind": "mariadb"})
    (host.bin / "read_only").write_text("1")
    assert runs.run(host.settings()).problems == []
    assert [one["name"] for one in host.manifest()["databases"]] == ["production_backup", "shop", "wine"]
    assert host.manifest()["marker"] is None, "nothing is written into a replica"


def test_postgresql(host: Host, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.dumps, "postgresql_ask", lambda sql: "15.18\n")
    monkeypatch.setattr(
        runs.dumps, "postgresql", lambda wanted, stage, seconds: [runs.dumps.Dump("postgresql", *wanted, "f", 1, "s")]
    )
    host.config["sources"] = [{"kind": "postgresql", "databases": ["stats"]}]
    assert runs.run(host.settings()).problems == []
    assert host.manifest()["versions"]["postgresql"] == "15.18"
    assert host.manifest()["databases"][0]["name"] == "stats"


# --- being alone, and being killed ------------------------------------------------------------------------------------


def test_one_at_a_time(settings: Settings) -> None:
    with settings.lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(programs.Failure, match="has not ended within 0 s"),
            runs.locked(settings, 0, lambda _: None),
        ):
            pass
        waited: list[float] = []

        def goes(seconds: float) -> None:
            waited.append(seconds)
            fcntl.flock(lock, fcntl.LOCK_UN)

        with runs.locked(settings, 60, goes):
            assert waited == [1.0]


KILLED = """\
import os, signal, sys
moment, seen = int(sys.argv[1]), 0
def hook(event, args):
    global seen
    if event in ("open", "subprocess.Popen", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir"):
        if armed:
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)
armed = False
sys.addaudithook(hook)
from pathlib import Path
from {collection} import runs
from {collection}.settings import Settings
from tests.unit.plugins.backups import use
class Patch:
    setattr = staticmethod(setattr)
root = Path(sys.argv[2])
use(root / "bin", Patch())
settings = Settings.load(root / "etc", root / "var", root / "cache")
armed = True
runs.run(settings)
print(seen)
"""


def killed_at(host: Host, moment: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", KILLED.format(collection=COLLECTION), str(moment), str(host.root)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def test_killed_at_any_moment(host: Host, settings: Settings) -> None:
    """What is killed leaves nothing that the next run does not remove, and no snapshot that was not seen whole."""
    whole = killed_at(host, 0)
    assert whole.returncode == 0, whole.stderr
    moments = int(whole.stdout)
    assert moments > 40
    for moment in range(2, moments, max(1, moments // 12)):
        died = killed_at(host, moment)
        assert died.returncode == -signal.SIGKILL, died.stderr
        outcome = runs.run(settings)
        assert outcome.problems == [], moment
        assert not settings.stage.exists()
        # The lock, the state with its own lock, and what is kept.
        assert sorted(one.name for one in settings.data.iterdir()) == [
            *("drills", "listings", "lock", "opened", "state.json", "state.lock")
        ]
        for name in ("near", "far"):
            assert of(settings, name)["unproven"] == []
            for which in range(len(host.snapshots(name))):
                assert host.manifest(name, which)["databases"], "each snapshot has its dumps"


def test_what_a_killed_run_left_is_forgotten(host: Host, settings: Settings) -> None:
    runs.run(settings)
    [kept] = host.snapshots()
    signals.record(settings, "repositories", "near", {"unproven": ["never there", kept["tags"][1][4:]]})
    outcome = runs.run(settings)
    assert outcome.problems == []
    assert [one["tags"][1] for one in host.snapshots()] == [f"run={outcome.values['run']}"]
    assert of(settings)["unproven"] == []
    signals.record(settings, "repositories", "near", {"unproven": ["never there"]})
    assert runs.run(settings).problems == []


@pytest.mark.parametrize("append_only", [False, True])
def test_the_lock_of_a_killed_run_goes(host: Host, settings: Settings, append_only: bool) -> None:
    host.config["repositories"][0]["append_only"] = append_only
    assert runs.run(host.settings()).problems == []
    assert host.calls("unlock") == [], "no run was killed, so nobody is asked"
    signals.record(settings, "repositories", "near", {"unproven": ["never there"]})
    for _ in range(2):
        assert runs.run(host.settings()).problems == []
        assert host.calls("unlock") == [["unlock"]], "once, of the repository that it was about"


def test_a_run_is_unproven_until_restic_was_seen_to_end(
    host: Host, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = runs.Restic.backup

    def ended_after(*args: Any) -> None:
        backup(*args)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(runs.Restic, "backup", ended_after)
        with pytest.raises(SystemExit):
            runs.run(settings)
    [unseen] = host.snapshots()
    assert of(settings)["unproven"] == [unseen["tags"][1][4:]]
    assert not settings.stage.exists()
    runs.run(settings)
    assert [one["id"] == unseen["id"] for one in host.snapshots()] == [False]


def test_nothing_is_forgotten_where_nothing_may_be_removed(host: Host, settings: Settings) -> None:
    host.config["repositories"][0]["append_only"] = True
    runs.run(settings)
    [kept] = host.snapshots()
    signals.record(settings, "repositories", "near", {"unproven": [kept["tags"][1][4:]]})
    assert runs.run(host.settings()).problems == []
    assert len(host.snapshots()) == 2
    assert of(settings)["unproven"] == []


# --- prune, check, status ---------------------------------------------------------------------------------------------


def test_prune(host: Host, settings: Settings) -> None:
    host.config["repositories"][0]["retention"] = {
        "last": 2,
        "daily": 7,
        "within": "3d",
        "within_weekly": "1m",
        "yearly": 0,
    }
    host.config["repositories"][1] |= {"retention": {"last": 1}, "append_only": True}
    runs.run(settings)
    lines: list[str] = []
    outcome = runs.prune(host.settings(), lines.append)
    assert outcome.problems == []
    assert host.calls("forget") == [
        [
            *("forget", "--json", "--prune", "--host=web1", "--tag=production-backup", "--group-by=host"),
            *("--keep-last=2", "--keep-daily=7", "--keep-within=3d", "--keep-within-weekly=1m"),
        ]
    ]
    assert of(settings)["snapshots"] == 1
    assert of(settings)["prune_success"] > 0
    assert "Repository far: left alone, nothing may be removed from here" in lines
    assert "prune_success" not in of(settings, "far")


def test_who_prunes_for_others_takes_each_host_by_itself(host: Host, settings: Settings) -> None:
    """A host that makes no snapshots in a repository looks at those of all hosts that do."""
    runs.run(settings)
    (one,) = host.snapshots()
    (host.root / "near" / "snapshots").write_text(json.dumps([one, {**one, "hostname": "web2"}]))
    host.config["repositories"][0] |= {"purposes": ["prune", "check"], "retention": {"within_daily": "30d"}}
    host.config["repositories"] = host.config["repositories"][:1]
    pruned = runs.prune(host.settings())
    assert pruned.problems == []
    (called,) = host.calls("forget")
    assert called == [
        "forget",
        "--json",
        "--prune",
        "--tag=production-backup",
        "--group-by=host",
        "--keep-within-daily=30d",
    ]
    assert pruned.values["repositories"]["near"]["snapshots"] == 2
    assert runs.check(host.settings()).values["repositories"]["near"]["snapshots"] == 2


def test_prune_without_retention(host: Host, settings: Settings) -> None:
    lines: list[str] = []
    assert runs.prune(settings, lines.append).problems == []
    assert "Repository near: left alone, it has no retention" in lines
    assert host.calls("forget") == []


def test_prune_of_a_repository_without_snapshots(host: Host, settings: Settings) -> None:
    host.config["repositories"][0]["retention"] = {"last": 2}
    assert runs.prune(host.settings()).problems == []
    assert of(settings)["newest_snapshot"] == 0


def test_a_snapshot_of_the_future_would_have_all_others_forgotten(host: Host, settings: Settings) -> None:
    host.config["repositories"][0]["retention"] = {"within": "7d"}
    runs.run(settings)
    [one] = host.snapshots()
    (host.root / "near" / "snapshots").write_text(json.dumps([{**one, "time": "2099-01-01T00:00:00Z"}]))
    outcome = runs.prune(host.settings())
    assert "is of the future" in outcome.problems[0]
    assert host.calls("forget") == []
    assert outcome.values["repositories"]["near"]["problem"] == outcome.problems[0]


def test_all_data_is_read_in_as_many_checks_as_there_are_parts(host: Host, settings: Settings) -> None:
    host.config["repositories"] = [{**host.config["repositories"][0], "check_parts": 2}]
    settings = host.settings()
    for _ in range(3):
        assert runs.check(settings).problems == []
    assert [one[-1] for one in host.calls("check")] == [f"--read-data-subset={part}/2" for part in (1, 2, 1)]
    host.forced({"verb": "check", "code": 1, "err": "Fatal: repository contains errors"})
    assert "what is stored in it is damaged" in runs.check(settings).problems[0]
    assert of(settings)["check_part"] == 1, "the part in which damage was found is read again"
    runs.run(settings)
    runs.check(settings)
    assert of(settings)["newest_snapshot"] > 0


def test_snapshots(host: Host, settings: Settings) -> None:
    runs.run(settings)
    found = runs.snapshots(settings).values["repositories"]
    assert [one["host"] for one in found["near"]] == ["web1"]
    assert set(runs.snapshots(settings, ["far"], every_host=True).values["repositories"]) == {"far"}
    host.forced({"verb": "snapshots", "code": 1, "err": "Fatal: no route"})
    assert "no route" in runs.snapshots(settings).problems[0]


def test_status(host: Host, settings: Settings) -> None:
    assert runs.status(settings).problems == [
        f"Repository {name}: the last backup that went well was never" for name in ("near", "far")
    ]
    runs.run(settings)
    assert runs.status(settings).problems == []
    signals.record(settings, "verbs", "check", {"problems": ["damaged"]})
    signals.record(settings, "repositories", "far", {"last_success": time.time() - 100 * 3600})
    assert runs.status(settings).problems == [
        "Repository far: the last backup that went well was 100.0 hours ago",
        "check: damaged",
    ]
