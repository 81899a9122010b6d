# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which snapshot is brought back, what of it, and in which order that is done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import (
    dumps,
    files,
    inplace,
    loading,
    manifest,
    restore,
    runs,
    servers,
)
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Done, Failure
from ansible_collections.fushuma.production.plugins.module_utils.backup.restic import Snapshot
from ansible_collections.fushuma.production.plugins.module_utils.backup.restore import (
    SAFETY,
    Asked,
    Part,
    Restore,
    Wanted,
    choose,
    parts_of,
    plan,
    stage_of,
)
from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import Repository, Settings, Source

NOW = 1_800_000_000.0
STAGE = "/data/stage"


def snapshot(
    id: str, age: float = 60, tags: Sequence[str] = ("production-backup",), paths: Sequence[str] = ()
) -> Snapshot:
    return Snapshot(id, NOW - age, "web1", tuple(tags), tuple(paths) or (STAGE, "/srv"))


KNOWN: dict[str, Any] = {
    "run": "r1",
    "host": "web1",
    "started": NOW,
    "databases": [
        {"kind": "mariadb", "name": "shop", "file": "mariadb/shop.sql", "bytes": 100, "tables": {"items": {}}},
        {
            "kind": "mariadb",
            "name": "production_backup",
            "file": "mariadb/production_backup.sql",
            "bytes": 1,
            "tables": {},
        },
        {"kind": "postgresql", "name": "stats", "file": "postgresql/stats.sql", "bytes": 10, "tables": {}},
    ],
    "redis": [{"instance": "cache", "file": "redis/cache.rdb", "bytes": 5, "keys": 3}],
    "paths": [
        {"path": "/etc", "volume": "", "listing": "listings/etc.jsonl", "bytes": 1000},
        {"path": "/srv", "volume": "", "listing": "listings/srv.jsonl", "bytes": 2000},
        {"path": "/docker/up/_data", "volume": "uploads", "listing": "listings/up.jsonl", "bytes": 3000},
    ],
}


# --- what is wanted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted", "confirm"),
    [
        ("everything", Wanted("everything"), "web1"),
        ("database:shop", Wanted("database", "shop"), "shop"),
        ("table:shop.items", Wanted("table", "shop.items"), "shop.items"),
        ("path:/srv/a/", Wanted("path", "/srv/a"), "/srv/a"),
        ("path:/", Wanted("path", "/"), "/"),
        ("volume:uploads", Wanted("volume", "uploads"), "uploads"),
        ("redis:cache", Wanted("redis", "cache"), "cache"),
        ("postgresql:stats", Wanted("postgresql", "stats"), "stats"),
    ],
)
def test_what_is_wanted(text: str, wanted: Wanted, confirm: str) -> None:
    assert Wanted.of(text) == wanted
    assert wanted.confirmation("web1") == confirm


@pytest.mark.parametrize(
    "text",
    ["", "all", "everything:", "database", "database:", "table:shop", "table:.x", "table:x.", "path:srv", "files:/x"],
)
def test_what_means_nothing(text: str) -> None:
    with pytest.raises(Failure, match=f'--what is "{text}": (write|a path begins with)'):
        Wanted.of(text)


def test_which_snapshot() -> None:
    safety = snapshot("ee01", 1, (SAFETY,))
    known = [snapshot("aa01", 900), snapshot("ab02", 300), snapshot("cc03", -90000), safety]
    assert choose(known, "latest", NOW).id == "ab02", "neither a safety snapshot nor one of the future"
    assert choose(known, "ee", NOW) is safety
    with pytest.raises(Failure, match='--snapshot is "a", and several snapshots begin so'):
        choose(known, "a", NOW)
    with pytest.raises(Failure, match=r"no snapshot begins so. The newest are aa01, ab02, cc03, ee01; or write latest"):
        choose(known, "f", NOW)
    with pytest.raises(Failure, match="The newest are none"):
        choose([], "", NOW)
    with pytest.raises(Failure, match="The repository has no snapshot of this host"):
        choose([safety], "latest", NOW)
    with pytest.raises(Failure, match="All snapshots of this host are of the future"):
        choose(known[2:3], "latest", NOW)


def test_where_the_manifest_is(tmp_path: Path) -> None:
    settings = Settings("web1", data=Path("/data"))
    assert stage_of(snapshot("a"), settings) == STAGE
    assert stage_of(snapshot("a", paths=["/srv/stage", STAGE]), settings) == STAGE
    assert stage_of(snapshot("a", paths=["/srv", "/scratch/restore-1/stage"]), settings) == "/scratch/restore-1/stage"
    with pytest.raises(Failure, match="Snapshot a has no manifest"):
        stage_of(snapshot("a", paths=["/srv"]), settings)


@pytest.mark.parametrize(
    ("what", "parts", "files"),
    [
        ("database:shop", ["database shop"], [f"{STAGE}/mariadb/shop.sql"]),
        ("table:shop.items", ["table shop.items"], [f"{STAGE}/mariadb/shop.sql"]),
        (
            "postgresql:stats",
            ["PostgreSQL database stats"],
            [f"{STAGE}/postgresql/globals.sql", f"{STAGE}/postgresql/stats.sql"],
        ),
        ("redis:cache", ["Redis instance cache"], [f"{STAGE}/redis/cache.rdb"]),
        ("path:/srv", ["path /srv"], [f"{STAGE}/listings/srv.jsonl", "/srv"]),
        ("path:/srv/a/b", ["path /srv/a/b"], [f"{STAGE}/listings/srv.jsonl", "/srv/a/b"]),
        ("volume:uploads", ["volume uploads"], [f"{STAGE}/listings/up.jsonl", "/docker/up/_data"]),
    ],
)
def test_what_of_a_snapshot(what: str, parts: list[str], files: list[str]) -> None:
    found = plan(Wanted.of(what), KNOWN, STAGE)
    assert [str(one) for one in found] == parts
    assert [file for one in found for file in one.files] == files
    assert all(one.alone for one in found)


def test_everything() -> None:
    found = plan(Wanted("everything"), KNOWN, STAGE)
    assert [str(one) for one in found] == [
        "database shop",
        "PostgreSQL database stats",
        "Redis instance cache",
        "path /etc",
        "path /srv",
        "volume uploads",
    ]
    assert [str(one) for one in found if one.system] == ["path /etc"]
    assert not any(one.alone for one in found)


@pytest.mark.parametrize(
    "what", ["database:stats", "table:shop.orders", "table:stats.x", "path:/sr", "path:/var", "volume:up", "redis:x"]
)
def test_what_a_snapshot_does_not_have(what: str) -> None:
    kind, _colon, name = what.partition(":")
    with pytest.raises(Failure, match=rf"The snapshot has no {kind} {name}\. It has database shop, .*, volume uploads"):
        plan(Wanted.of(what), KNOWN, STAGE)


def test_room() -> None:
    parts = parts_of(KNOWN, STAGE)
    assert restore.needed(parts) == 100 + 1 + 10 + 5 + 6000
    assert restore.needed(parts, 5) == 500 + 5 + 50 + 5 + 6000
    assert restore.needed(plan(Wanted.of("path:/srv/a"), KNOWN, STAGE), 5) == 0, "how much that is nobody knows"


# --- doing it ---------------------------------------------------------------------------------------------------------


class Store:
    """A repository: snapshots, and what is in each of them as a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.snapshots: list[Snapshot] = []
        self.calls: list[list[str]] = []

    def tree(self, id: str) -> Path:
        return self.folder / id


class FakeRestic:
    """In the place of Restic."""

    store: Store

    def __init__(self, settings: Settings, repository: Repository, say: Any = None) -> None:
        self.settings, self.repository = settings, repository

    def version(self) -> str:
        return "0.14.0"

    def snapshots(self, host: str, tags: Iterable[str] = ("production-backup",)) -> list[Snapshot]:
        return [one for one in self.store.snapshots if one.host == host and set(tags) & set(one.tags)]

    def restore(self, id: str, target: Path, includes: Iterable[str] = ()) -> None:
        for include in list(includes) or [f"/{one.name}" for one in self.store.tree(id).iterdir()]:
            source = Path(f"{self.store.tree(id)}{include}")
            if source.exists():
                Path(f"{target}{include}").parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, f"{target}{include}", dirs_exist_ok=True)
                else:
                    shutil.copy2(source, f"{target}{include}")

    def backup(self, paths: Iterable[str], tags: Iterable[str], exclude: Iterable[str] = ()) -> Mapping[str, Any]:
        id = f"5afe{len(self.store.snapshots):04}"
        left_out = manifest.excludes(list(exclude))
        for path in paths:
            assert not (left_out and left_out.match(f"{path}/")), f"{path} is left out"
            shutil.copytree(path, f"{self.store.tree(id)}{path}")
        self.store.snapshots.append(Snapshot(id, time.time(), self.settings.host, tuple(tags), tuple(paths)))
        return {"snapshot_id": id}

    def call(self, args: Sequence[str]) -> Done:
        self.store.calls.append(list(args))
        return Done(0, "", "")


class Step:
    """In the place of a work of inplace or files: notes what is done with it."""

    log: list[str]
    fails = ""

    def __init__(self, *told: Any) -> None:
        self.told = told
        self.name = str(told[0])

    def _do(self, step: str) -> None:
        self.log.append(f"{step} {self.name}")
        if f"{step} {self.name}" == Step.fails:
            raise Failure(f"no {self.fails}")

    def prepare(self) -> None:
        self._do("prepare")

    def bring(self) -> None:
        self._do("bring")

    def discard(self) -> None:
        self.log.append(f"discard {self.name}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    srv = tmp_path / "srv"
    (srv / "deep").mkdir(parents=True)
    (srv / "deep" / "file").write_text("now")
    return Settings(
        "web1",
        repositories=(Repository("local", "/r"), Repository("offsite", "sftp:x:/r", append_only=True)),
        sources=(
            Source("path", path=str(srv)),
            Source("redis", instance="cache", folder=str(tmp_path / "redis"), rdb="/x.rdb"),
        ),
        folder=tmp_path / "etc",
        data=tmp_path / "data",
        scratch=tmp_path / "scratch",
    )


@pytest.fixture
def store(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A repository with one snapshot: a database, an instance, PostgreSQL, and a path as it was once."""
    found = Store(tmp_path / "store")
    monkeypatch.setattr(FakeRestic, "store", found, raising=False)
    monkeypatch.setattr(restore, "Restic", FakeRestic)
    srv, tree = tmp_path / "srv", found.tree("abcd0001")
    stage = Path(f"{tree}{settings.stage}")
    shutil.copytree(srv, f"{tree}{srv}")
    (Path(f"{tree}{srv}") / "deep" / "file").write_text("then")
    known = json.loads(json.dumps(KNOWN))
    known["started"] = time.time() + 60 * 60
    for one in [*known["databases"], *known["redis"]]:
        file = stage / one["file"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(one["file"])
        one["sha256"] = hashlib.sha256(one["file"].encode()).hexdigest()
    (stage / "postgresql" / "globals.sql").touch()
    (stage / "listings").mkdir()
    shutil.move(srv, tmp_path / "aside")
    shutil.copytree(f"{tree}{srv}", srv)
    manifest.listing(str(srv), stage / "listings" / "srv.jsonl")
    shutil.rmtree(srv)
    shutil.move(tmp_path / "aside", srv)
    known["paths"] = [{"path": str(srv), "volume": "", "listing": "listings/srv.jsonl", "bytes": 4}]
    (stage / "manifest.json").write_text(json.dumps(known))
    found.snapshots.append(snapshot("abcd0001", 0, paths=[str(srv), str(settings.stage)]))
    found.snapshots[0] = replace(found.snapshots[0], time=time.time())
    monkeypatch.setattr(servers.Mariadb, "ask", lambda self, sql: [["shop"], ["mysql"]])
    monkeypatch.setattr(servers.Postgresql, "ask", lambda self, sql: [["postgres"]])
    return found


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All works are noted and none is done; dumps are texts."""
    log: list[str] = []
    monkeypatch.setattr(Step, "log", log, raising=False)
    for module, name in (
        (inplace, "MariadbWork"),
        (inplace, "PostgresqlWork"),
        (inplace, "RedisWork"),
        (files, "PathWork"),
    ):
        monkeypatch.setattr(module, name, Step)

    def dump(names: list[str], stage: Path, seconds: float, client: Any = None) -> list[dumps.Dump]:
        log.append(f"dump {names}")
        return [dumps.Dump("mariadb", name, f"mariadb/{name}.sql", 1, "") for name in names]

    def redis(source: Source, stage: Path, seconds: float) -> dict[str, Any]:
        log.append(f"save {source.instance}")
        return {"instance": source.instance}

    monkeypatch.setattr(dumps, "mariadb", dump)
    monkeypatch.setattr(dumps, "postgresql", dump)
    monkeypatch.setattr(dumps, "redis", redis)
    return log


def restored(settings: Settings, what: str, **asked: Any) -> dict[str, Any]:
    return Restore(settings, Asked(Wanted.of(what), "local", **asked), lambda line: None).run()


def test_a_path_beside(settings: Settings, store: Store, tmp_path: Path) -> None:
    done = restored(settings, f"path:{tmp_path}/srv/deep")
    assert done["parts"] == [f"path {tmp_path}/srv/deep"]
    assert Path(done["to"]).parent == settings.restored
    assert Path(f"{done['to']}{tmp_path}/srv/deep/file").read_text() == "then"
    assert (tmp_path / "srv" / "deep" / "file").read_text() == "now"
    assert done["seconds"] > 0
    assert [one.name for one in settings.scratch.iterdir()] == [".lock"]


def test_everything_beside(settings: Settings, store: Store, tmp_path: Path) -> None:
    done = restored(settings, "everything", to=tmp_path / "to")
    assert done["to"] == str(tmp_path / "to")
    stage = Path(f"{tmp_path}/to{settings.stage}")
    assert sorted(str(one.relative_to(stage)) for one in stage.rglob("*") if one.is_file()) == [
        "listings/srv.jsonl",
        "mariadb/shop.sql",
        "postgresql/globals.sql",
        "postgresql/stats.sql",
        "redis/cache.rdb",
    ]
    with pytest.raises(Failure, match="to, which is not empty: write a folder that is"):
        restored(settings, "everything", to=tmp_path / "to")


def test_a_table_beside(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def private(folder: Path, seconds: float) -> Iterator[servers.Mariadb]:
        yield servers.Mariadb()

    def dump(self: servers.Mariadb, arguments: Sequence[str], into: Path) -> None:
        assert arguments == ["--triggers", "--", "shop", "items"]
        into.write_text("one table")

    monkeypatch.setattr(servers, "private_mariadb", private)
    monkeypatch.setattr(servers.Mariadb, "dump", dump)
    monkeypatch.setattr(loading, "load_mariadb", lambda name, entry, file, server: file.read_text())
    monkeypatch.setattr(loading, "tables_of", lambda name, server, folder: {"items": {"rows": 1, "sha256": ""}})
    monkeypatch.setattr(loading, "differences", lambda expected, found, name: [])
    monkeypatch.setattr(inplace, "differences", lambda expected, found, name: [])
    done = restored(settings, "table:shop.items")
    folder = Path(f"{done['to']}{settings.stage}/mariadb")
    assert {one.name: one.read_text() for one in folder.iterdir()} == {"shop.items.sql": "one table"}


@pytest.mark.parametrize(
    ("what", "damage", "said"),
    [
        ("database:shop", "{stage}/mariadb/shop.sql", "database shop is not the file that was written then"),
        ("redis:cache", "{stage}/redis/cache.rdb", "Redis instance cache is not the file that was written then"),
        ("path:{srv}", "{srv}/deep/file", "srv/deep/file has"),
    ],
)
def test_what_is_not_what_was_backed_up(
    settings: Settings, store: Store, steps: list[str], tmp_path: Path, what: str, damage: str, said: str
) -> None:
    places = {"stage": settings.stage, "srv": tmp_path / "srv"}
    Path(f"{store.tree('abcd0001')}{damage.format(**places)}").write_text("something else")
    what = what.format(**places)
    with pytest.raises(Failure, match=f"is not what was backed up: .*{said}"):
        restored(settings, what)
    with pytest.raises(Failure, match="is not what was backed up"):
        restored(settings, what, in_place=True, confirm=what.partition(":")[2])
    assert steps == []


def test_what_is_missing_in_a_snapshot(settings: Settings, store: Store) -> None:
    Path(f"{store.tree('abcd0001')}{settings.stage}/mariadb/shop.sql").unlink()
    with pytest.raises(Failure, match=r"stage/mariadb/shop\.sql is not in the snapshot"):
        restored(settings, "database:shop")


def test_refusals(settings: Settings, store: Store, tmp_path: Path) -> None:
    with pytest.raises(Failure, match='--confirm is "": --in-place overwrites shop, so write --confirm=shop'):
        restored(settings, "database:shop", in_place=True)
    with pytest.raises(Failure, match="--to and --in-place say two different things"):
        restored(settings, "database:shop", in_place=True, confirm="shop", to=tmp_path)
    with pytest.raises(Failure, match="There is no repository nowhere"):
        Restore(settings, Asked(Wanted("everything"), "nowhere"), print)
    with pytest.raises(Failure, match=r"local: The repository has no snapshot of this host$"):
        restored(settings, "everything", host="web2")
    with pytest.raises(Failure, match=r"local: The repository has no .*; offsite: The repository has no"):
        Restore(settings, Asked(Wanted("everything"), host="web2"), print).run()
    with pytest.raises(Failure, match="This host has no repository: set backup_repositories"):
        Restore(replace(settings, repositories=()), Asked(Wanted("everything")), print)


def test_the_first_repository_that_has_it(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one on a host that was lost is new and empty."""
    known = FakeRestic.snapshots

    def snapshots(self: FakeRestic, host: str, tags: Iterable[str] = ("production-backup",)) -> list[Snapshot]:
        return known(self, host, tags) if self.repository.name == "offsite" else []

    monkeypatch.setattr(FakeRestic, "snapshots", snapshots)
    done = Restore(settings, Asked(Wanted.of("database:shop")), lambda line: None).run()
    assert done["repository"] == "offsite"


def test_everything_in_place(settings: Settings, store: Store, steps: list[str], tmp_path: Path) -> None:
    done = restored(settings, "everything", in_place=True, confirm="web1")
    path = f"{settings.scratch}/{{}}/files{tmp_path}/srv"
    folder = next(one for one in steps if one.startswith("prepare /")).split("/scratch/")[1].split("/")[0]
    redis = str(settings.sources[1])
    parts = ["shop", "stats", redis, path.format(folder)]
    assert steps == [
        *(f"prepare {one}" for one in parts),
        "dump ['shop']",
        "save cache",
        *(f"bring {one}" for one in parts),
        *(f"discard {one}" for one in parts),
    ]
    assert done["safety"] == "5afe0001"
    assert "to" not in done
    safety = store.snapshots[-1]
    assert safety.tags[0] == SAFETY
    tree = store.tree(safety.id)
    known = json.loads(Path(f"{tree}{stage_of(safety, settings)}/manifest.json").read_text())
    assert [one["name"] for one in known["databases"]] == ["shop"], "there is no stats to be kept"
    assert known["redis"] == [{"instance": "cache"}]
    assert known["paths"][0]["files"] == 1
    assert Path(f"{tree}{tmp_path}/srv/deep/file").read_text() == "now"
    assert store.calls == [["forget", f"--tag={SAFETY}", "--host=web1", "--keep-within=30d"]]
    assert choose(store.snapshots, "latest", time.time()).id == "abcd0001"


def test_a_safety_snapshot_is_restored_like_any_other(
    settings: Settings, store: Store, steps: list[str], tmp_path: Path
) -> None:
    what = f"path:{tmp_path}/srv"
    done = restored(settings, what, in_place=True, confirm=f"{tmp_path}/srv")
    again = restored(settings, what, snapshot=done["safety"])
    assert Path(f"{again['to']}{tmp_path}/srv/deep/file").read_text() == "now"


def test_the_hosts_own_configuration_stays(settings: Settings, store: Store, steps: list[str], tmp_path: Path) -> None:
    stage = Path(f"{store.tree('abcd0001')}{settings.stage}")
    known = json.loads((stage / "manifest.json").read_text())
    known["paths"].append({"path": "/etc", "volume": "", "listing": "listings/etc.jsonl", "bytes": 4})
    (stage / "manifest.json").write_text(json.dumps(known))
    said: list[str] = []
    asked = Asked(Wanted("everything"), "local", in_place=True, confirm="web1")
    done = Restore(settings, asked, said.append).run()
    assert done["left"] == ["path /etc"]
    assert "path /etc" not in done["parts"]
    assert any(line.startswith("path /etc stays as it is") for line in said)
    assert not [one for one in steps if "/etc" in one]


@pytest.mark.parametrize("step", ["prepare", "bring"])
def test_what_fails_in_place(
    settings: Settings, store: Store, steps: list[str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(Step, "fails", f"{step} stats")
    with pytest.raises(Failure, match=f"no {step} stats"):
        restored(settings, "everything", in_place=True, confirm="web1")
    assert len([one for one in steps if one.startswith("discard")]) == 4
    assert len(store.snapshots) == (1 if step == "prepare" else 2)
    assert [one for one in steps if one.startswith("bring")] == (
        [] if step == "prepare" else ["bring shop", "bring stats"]
    )
    assert [one.name for one in settings.scratch.iterdir()] == [".lock"]


def test_no_backup_begins_meanwhile(
    settings: Settings, store: Store, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def locked(settings: Settings) -> Iterator[None]:
        steps.append("locked")
        yield
        steps.append("free")

    monkeypatch.setattr(runs, "locked", locked)
    restored(settings, "database:shop", in_place=True, confirm="shop")
    assert (steps[0], steps[-1]) == ("locked", "free")


def test_an_instance_that_does_not_run_is_kept_as_it_lies(
    settings: Settings, store: Store, steps: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "dump.rdb").write_text("broken")
    monkeypatch.setattr(dumps, "redis", lambda *told: (_ for _ in ()).throw(Failure("it is down")))
    restored(settings, "redis:cache", in_place=True, confirm="cache")
    assert Path(f"{store.tree(store.snapshots[-1].id)}{tmp_path}/redis/dump.rdb").read_text() == "broken"


def test_nothing_goes_from_where_nothing_may_be_removed(settings: Settings, store: Store, steps: list[str]) -> None:
    asked = Asked(Wanted.of("database:shop"), "offsite", in_place=True, confirm="shop")
    Restore(settings, asked, lambda line: None).run()
    assert store.calls == []


def test_what_this_host_does_not_have(settings: Settings, store: Store, steps: list[str]) -> None:
    without = replace(settings, sources=())
    with pytest.raises(Failure, match=r"This host has no Redis instance cache: run site.yml first"):
        restored(without, "redis:cache", in_place=True, confirm="cache")
    assert steps == []


def test_a_volume_may_lie_elsewhere(settings: Settings, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr(runs, "place", lambda source: f"/volumes/{source.volume}")
    part = Part("path", "/docker/up/_data", {}, (), volume="uploads")
    one = Restore(settings, Asked(Wanted("everything"), "local"), print)
    assert one._place(part) == Path("/volumes/uploads")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(settings: Settings, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert restore.main(["--what=everything", f"--to={tmp_path}/to"], settings) == 0
    said = capsys.readouterr().out
    assert "Snapshot abcd0001 of " in said
    assert f"database shop is at {tmp_path}/to{settings.stage}/mariadb/shop.sql" in said
    assert "Restored (" in said
    assert restore.main(["--what=database:shop", "--in-place", "--dry-run"], settings) == 0
    assert "Would restore database shop (" in capsys.readouterr().out


def test_each_step_is_said_at_once(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ends a restore in its middle has read how far it came."""
    said = tmp_path / "said"

    def work(one: Restore) -> dict[str, Any]:
        one.say("a step")
        assert said.read_text() == "a step\n"
        return {"seconds": 1}

    monkeypatch.setattr(Restore, "run", work)
    with said.open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        assert restore.main(["--what=everything"], settings) == 0


def test_the_command_for_a_machine(settings: Settings, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert restore.main(["--what=database:shop", "--json", "--from=offsite"], settings) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["ok"], done["snapshot"], done["parts"]) == (True, "abcd0001", ["database shop"])
    assert restore.main(["--what=database:none", "--json"], settings) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["ok"] is False
    assert "The snapshot has no database none" in json.loads(told.out)["problem"] + told.err
    assert restore.main(["--what=nothing"], replace(settings, repositories=())) == 1
    with pytest.raises(SystemExit) as caught:
        restore.main([], settings)
    assert caught.value.code == 2
