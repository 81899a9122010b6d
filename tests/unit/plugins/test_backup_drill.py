# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Drills: what is measured, what fails one, and what is kept of it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import (
    drill,
    loading,
    manifest,
    restore,
    servers,
    signals,
)
from ansible_collections.fushuma.production.plugins.module_utils.backup.drill import (
    Drill,
    Result,
    answered,
    history,
    judged,
    span,
)
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Failure
from ansible_collections.fushuma.production.plugins.module_utils.backup.restic import Snapshot
from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import (
    Query,
    Repository,
    Settings,
    Source,
)

STARTED = 1_795_000_000.0


def result(**values: Any) -> Result:
    return Result("web1", "offsite", STARTED, 3600, 93600, **{"rto_seconds": 90.5, "rpo_seconds": 7200, **values})


# --- what is judged ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, []),
        ({"rto_seconds": 3600, "rpo_seconds": 93600}, []),
        ({"rto_seconds": 3601}, ["The RTO is 1 h 0 min, and the target is 1 h 0 min"]),
        ({"rpo_seconds": 200000}, ["The RPO is 2 d 7 h, and the target is 26 h 0 min"]),
        ({"rto_seconds": 0}, ["The RTO was measured as 0.0 s, which cannot be: look at the clock of this host"]),
        ({"rpo_seconds": -5}, ["The RPO was measured as -5.0 s, which cannot be: look at the clock of this host"]),
        (
            {"rto_seconds": None, "rpo_seconds": None},
            ["The RTO could not be measured", "The RPO could not be measured"],
        ),
    ],
)
def test_times_that_were_measured(values: dict[str, Any], said: list[str]) -> None:
    assert judged(result(**values)) == said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (200000, "2 d 7 h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("rows", "answer", "ok"),
    [
        ([["3"]], "3", True),
        ([["2", "9"]], "2", True),
        ([["1"]], "1", False),
        ([["NULL"]], "NULL", False),
        ([], "", False),
    ],
)
def test_answers_of_the_application(rows: list[list[str]], answer: str, ok: bool) -> None:
    said = answered(Query("shop", "SELECT 1", 2), rows)
    assert said == {"database": "shop", "query": "SELECT 1", "at_least": 2, "answer": answer, "ok": ok}


def test_the_page_of_all_drills() -> None:
    good = asdict(result(ok=True, snapshot="abcdef012345", bytes=1234567, files=20000, tables=3, rows=1000))
    bad = {**asdict(result(rto_seconds=None, problems=["a | b"])), "started": STARTED + 86400}
    lines = history([good, bad]).splitlines()
    assert lines[0] == "# Restore drills"
    assert lines[6:] == [
        "| 2026-11-19 11:06 | offsite | – | failed: a \\| b | – | 1 h 0 min | 2 h 0 min | 26 h 0 min | 0 | 0 | 0 | 0 |",
        "| 2026-11-18 11:06 | offsite | abcdef01 | passed | 1 min 30 s | 1 h 0 min | 2 h 0 min | 26 h 0 min "
        "| 20,000 | 3 | 1,000 | 1,234,567 |",
    ]
    assert len({line.count("|") - line.count("\\|") for line in lines[4:]}) == 1


def test_which_repositories(tmp_path: Path) -> None:
    local, far = Repository("local", "/r"), Repository("far", "sftp:x", offsite=True)
    other = Repository("other", "s3:x", offsite=True, purposes=("backup",))
    settings = Settings("web1", repositories=(local, other, far, replace(far, name="farther")))
    assert [one.name for one in drill.chosen(settings, "")] == ["far", "farther"]
    assert drill.chosen(settings, "local") == [local]
    with pytest.raises(Failure, match="There is no repository x"):
        drill.chosen(settings, "x")
    with pytest.raises(Failure, match="No repository is off-site and for drills"):
        drill.chosen(replace(settings, repositories=(local, other)), "")


# --- doing it ---------------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """In the place of a private server: databases with their tables, and what is asked of it."""

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    roles: str = ""
    fails: list[str] = field(default_factory=list)  # loads that fail, each once

    def ask(self, sql: str, database: str = "") -> list[list[str]]:
        self.asked.append((database, sql))
        if sql.startswith("SELECT written"):
            return [["1795000000"]]
        return self.answers.get(sql, [])

    def have_roles(self, file: Path) -> None:
        self.roles = str(file)

    def load(self, name: str, entry: Any, file: Path, server: Server) -> None:
        assert server is self
        if name in self.fails:
            self.fails.remove(name)
            raise Failure(f"{name} needs another one")
        self.tables[name] = json.loads(file.read_text())


@dataclass
class World:
    """A repository with a snapshot, and private servers."""

    settings: Settings
    tree: Path
    known: dict[str, Any]
    mariadb: Server = field(default_factory=Server)
    postgresql: Server = field(default_factory=Server)
    redis: list[tuple[Any, ...]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def write(self, name: str, text: str) -> None:
        path = Path(f"{self.tree}{self.settings.stage}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def finish(self) -> None:
        self.write("manifest.json", json.dumps(self.known))

    def drill(self) -> Result:
        self.finish()
        return Drill(self.settings, self.settings.repositories[0], lambda line: None).run()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """All kinds of sources, each as it was backed up."""
    settings = Settings(
        "web1",
        repositories=(Repository("far", "sftp:x", offsite=True),),
        sources=(Source("redis", instance="queue", server="valkey"),),
        queries=(Query("shop", "SELECT COUNT(*)", 2),),
        data=tmp_path / "data",
        scratch=tmp_path / "scratch",
        textfile=str(tmp_path),
    )
    found = World(settings, tmp_path / "tree", {})
    tables = {"items": {"rows": 3, "sha256": "a"}, "orders": {"rows": 4, "sha256": "b"}}
    databases = [("mariadb", "shop", tables), ("mariadb", "production_backup", {}), ("postgresql", "stats", tables)]
    found.known = {
        "run": "r1",
        "host": "web1",
        "started": STARTED,
        "marker": 1_795_000_000,
        "versions": {"postgresql": "15.6", "restic": "0.14.0"},
        "databases": [],
        "redis": [],
    }
    for kind, name, of in databases:
        file = f"{kind}/{name}.sql"
        found.write(file, json.dumps(of))
        entry = {"kind": kind, "name": name, "file": file, "bytes": 100, "tables": of}
        found.known["databases"].append(
            {**entry, "sha256": loading.digest(Path(f"{found.tree}{settings.stage}/{file}"))}
        )
    found.write("postgresql/globals.sql", "")
    for name in ("cache", "queue"):
        file = f"redis/{name}.rdb"
        found.write(file, "rdb")
        sha256 = loading.digest(Path(f"{found.tree}{settings.stage}/{file}"))
        found.known["redis"].append({"instance": name, "file": file, "bytes": 10, "keys": 7, "sha256": sha256})
    found.write("listings/srv.jsonl", "")
    Path(f"{found.tree}/srv").mkdir()
    found.known["paths"] = [{"path": "/srv", "volume": "", "listing": "listings/srv.jsonl", "bytes": 1000, "files": 20}]
    found.snapshots = [Snapshot("abcd0001", STARTED + 5, "web1", ("production-backup",), ("/srv", str(settings.stage)))]
    found.mariadb.answers["SELECT COUNT(*)"] = [["2"]]

    class FakeRestic:
        def __init__(self, *told: Any, **options: Any) -> None:
            pass

        def snapshots(self, host: str) -> list[Snapshot]:
            return [one for one in found.snapshots if one.host == host]

        def restore(self, id: str, target: Path, includes: Sequence[str] = ()) -> None:
            import shutil

            shutil.copytree(found.tree, target, dirs_exist_ok=True)

    @contextlib.contextmanager
    def private(server: Server) -> Iterator[Server]:
        yield server

    def redis(name: str, keys: int, rdb: Path, folder: Path, server: str) -> list[str]:
        found.redis.append((name, keys, rdb.read_text(), server))
        return []

    def tables_of(name: str, server: Server, folder: Path) -> dict[str, Any]:
        return server.tables[name]

    monkeypatch.setattr(drill, "Restic", FakeRestic)
    monkeypatch.setattr(servers, "private_mariadb", lambda folder, seconds: private(found.mariadb))
    monkeypatch.setattr(servers, "private_postgresql", lambda folder, version, seconds: private(found.postgresql))
    monkeypatch.setattr(loading, "load_mariadb", found.mariadb.load)
    monkeypatch.setattr(loading, "load_postgresql", found.postgresql.load)
    monkeypatch.setattr(loading, "tables_of", tables_of)
    monkeypatch.setattr(loading, "redis_problems", redis)
    monkeypatch.setattr(manifest, "compare", lambda listing, root, started: [])
    monkeypatch.setattr(time, "time", lambda: 1_795_000_060.0)
    return found


def test_a_drill_that_goes_well(world: World) -> None:
    done = world.drill()
    assert done.problems == []
    assert done.ok
    assert done.rto_seconds is not None
    assert 0 < done.rto_seconds < 60
    assert done.rpo_seconds == 60
    assert (done.snapshot, done.files, done.bytes, done.tables, done.rows, done.keys) == (
        "abcd0001",
        20,
        1320,
        4,
        14,
        14,
    )
    assert done.versions == {"postgresql": "15.6", "restic": "0.14.0"}
    assert done.queries == [{"database": "shop", "query": "SELECT COUNT(*)", "at_least": 2, "answer": "2", "ok": True}]
    assert list(done.seconds) == ["fetch", "compare", "databases"]
    assert [sql for _at, sql in world.mariadb.asked if "SELECT definer" in sql], "views need accounts"
    assert world.redis == [("cache", 7, "rdb", "redis"), ("queue", 7, "rdb", "valkey")]
    assert world.postgresql.roles.endswith("/postgresql/globals.sql")
    assert [one.name for one in world.settings.scratch.iterdir()] == [".lock"]


def test_only_files(world: World) -> None:
    """Without a database there is no marker, and no server is started."""
    world.known |= {"databases": [], "redis": [], "marker": None, "started": 1_795_000_000.0 - 30}
    world.settings = replace(world.settings, queries=())
    done = world.drill()
    assert done.ok, done.problems
    assert done.rpo_seconds == 90
    assert world.mariadb.asked == world.postgresql.asked == []


def test_a_server_that_nothing_may_be_written_to(world: World) -> None:
    """A replica has the marker of its source, which says nothing of this backup."""
    world.known["marker"] = None
    done = world.drill()
    assert done.ok, done.problems
    assert done.rpo_seconds == 60
    assert not [sql for _at, sql in world.mariadb.asked if "marker" in sql]


Change = Callable[[World], object]


def damaged(world: World, *, table: str = "items", **values: Any) -> None:
    world.known["databases"][0]["tables"] = {
        "items": {"rows": 3, "sha256": "a"},
        "orders": {"rows": 4, "sha256": "b"},
    }
    world.known["databases"][0]["tables"][table] |= values


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda world: damaged(world, rows=5), "shop.items has 3 rows instead of 5"),
        (lambda world: damaged(world, sha256="z"), "shop.items has other data than the manifest says"),
        (
            lambda world: world.known["databases"][0].update(sha256="x"),
            "database shop is not the file that was written then",
        ),
        (lambda world: world.known.update(marker=1), "The marker says 1795000000, and the manifest 1"),
        (
            lambda world: world.mariadb.answers.clear(),
            "In shop `SELECT COUNT(*)` says nothing, and at least 2 was wanted",
        ),
        (
            lambda world: world.mariadb.answers.update({"SELECT COUNT(*)": [["1"]]}),
            "In shop `SELECT COUNT(*)` says 1, and at least 2 was wanted",
        ),
        (
            lambda world: world.known["databases"].pop(0),
            "The snapshot has no database shop, which a query of the drill is",
        ),
        (lambda world: world.snapshots.clear(), "The repository has no snapshot of this host"),
        (lambda world: world.mariadb.fails.extend(["shop", "shop"]), "shop needs another one"),
    ],
)
def test_what_fails_a_drill(world: World, change: Change, said: str) -> None:
    change(world)
    done = world.drill()
    assert not done.ok
    assert any(said in one for one in done.problems), done.problems
    assert [one.name for one in world.settings.scratch.iterdir()] == [".lock"]


def test_all_problems_are_found_and_the_times_measured_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged(world, rows=9)
    monkeypatch.setattr(manifest, "compare", lambda listing, root, started: ["/srv/a is missing"])
    monkeypatch.setattr(loading, "redis_problems", lambda *told: ["no keys"])
    done = world.drill()
    assert done.problems == ["/srv/a is missing", "shop.items has 3 rows instead of 9", "no keys", "no keys"]
    assert done.rto_seconds is not None
    assert done.rpo_seconds == 60


def test_a_view_of_a_database_that_comes_later(world: World) -> None:
    world.mariadb.fails.append("shop")
    done = world.drill()
    assert done.ok, done.problems
    assert [sql for _at, sql in world.mariadb.asked if "`shop`" in sql] == ["DROP DATABASE IF EXISTS `shop`"] * 2


def test_targets_that_are_missed(world: World) -> None:
    world.settings = replace(world.settings, rto_seconds=0, rpo_seconds=59)
    done = world.drill()
    assert not done.ok
    assert [line.split(",")[0][:11] for line in done.problems] == ["The RTO is ", "The RPO is "]


def test_a_clock_that_was_set_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.finish()
    monkeypatch.setattr(time, "time", lambda: 1_794_999_000.0)
    done = world.drill()
    assert done.problems == ["The RPO was measured as -1000.0 s, which cannot be: look at the clock of this host"]


# --- what is kept of it -----------------------------------------------------------------------------------------------


def test_the_command(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.finish()
    assert drill.main([], world.settings) == 0
    said = capsys.readouterr().out
    assert "RTO 0." in said
    assert ", RPO 1 min 0 s: " in said
    (file,) = world.settings.drills.glob("*.json")
    assert file.name == "20261118T110740Z-far.json"
    assert json.loads(file.read_text())["ok"] is True
    assert "passed" in (world.settings.drills / "history.md").read_text()
    kept = signals.state(world.settings)["drills"]["far"]
    assert kept["last_attempt"] == kept["last_success"] == 1_795_000_060.0
    assert (kept["success"], kept["rpo_seconds"]) == (True, 60)
    assert 'production_restore_drill_success{repository="far"} 1' in (tmp_path / "production_backup.prom").read_text()


def test_each_step_is_said_at_once(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tmp_path / "said"

    def work(one: drill.Drill) -> drill.Result:
        one.say("a step")
        assert said.read_text() == "a step\n"
        return one.result

    monkeypatch.setattr(drill.Drill, "run", work)
    with said.open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        assert drill.main([], world.settings) == 1


def test_a_drill_that_failed_is_kept_too(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signals.record(world.settings, "drills", "far", {"last_success": 5, "rto_seconds": 80})
    world.snapshots.clear()
    problems: list[str] = []
    assert drill.main(["--json"], world.settings, problems) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["ok"] is False
    assert json.loads(told.out)["drills"][0]["rto_seconds"] is None
    assert problems[0] == "far: The repository has no snapshot of this host"
    assert "The RTO could not be measured" in told.err
    kept = signals.state(world.settings)["drills"]["far"]
    assert (kept["last_success"], kept["success"], kept["rto_seconds"]) == (5, False, 80)
    assert "failed: The repository" in (world.settings.drills / "history.md").read_text()


def test_old_results_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "KEPT", 2)
    for number in range(4):
        drill.kept(world.settings, replace(result(ok=True), started=STARTED + number))
    assert len(list(world.settings.drills.glob("*.json"))) == 2
    assert (world.settings.drills / "history.md").read_text().count("passed") == 2


def test_a_result_that_cannot_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*told: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(signals, "write", full)
    with pytest.raises(Failure, match=r"The result of the drill cannot be written to .*: No space left on device"):
        drill.kept(world.settings, result())


def test_nothing_off_site(world: World) -> None:
    with pytest.raises(Failure, match="No repository is off-site"):
        drill.main([], replace(world.settings, repositories=()))
    assert restore.OWN_DATABASE == drill.MARKER_DATABASE
