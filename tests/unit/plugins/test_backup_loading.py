# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dumps loaded into servers that are nobody's, and how they differ from their manifest."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import dumps, loading, servers
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Failure
from ansible_collections.fushuma.production.plugins.module_utils.backup.servers import Mariadb, Postgresql


def table(rows: int, content: str = "a") -> dict[str, Any]:
    return {"rows": rows, "sha256": content}


def test_a_scratch_folder_goes_with_what_others_left(tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    with loading.scratch("drill", root) as folder:
        (folder / "data").mkdir()
        assert folder.name.startswith("drill-")
        assert folder.stat().st_mode & 0o777 == root.stat().st_mode & 0o777 == 0o711
    assert not folder.exists()
    (root / "restore-killed").mkdir()
    (root / "restore-killed" / "file").touch()
    with pytest.raises(Failure, match="it fails"):
        fail_in(root)
    assert [one.name for one in root.iterdir()] == [".lock"]


def fail_in(root: Path) -> None:
    with loading.scratch("drill", root) as folder:
        assert [one.name for one in root.iterdir() if one.is_dir()] == [folder.name]
        raise Failure("it fails")


def test_one_at_a_time(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Failure, match="Another restore or drill is at work"), loading.scratch("drill", tmp_path):
            raise AssertionError("two at once")


def test_folders_room_and_digests(tmp_path: Path) -> None:
    assert loading.private(tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    loading.enough(tmp_path, 1)
    with pytest.raises(Failure, match=r"MiB free, and \d+ MiB are needed"):
        loading.enough(tmp_path, 2**62)
    (tmp_path / "file").write_bytes(b"data")
    assert loading.digest(tmp_path / "file") == hashlib.sha256(b"data").hexdigest()


def test_many_problems_are_cut_short() -> None:
    assert loading.listed(["a", "b"]) == "a; b"
    assert loading.listed([str(one) for one in range(12)]) == "0; 1; 2; 3; 4; 5; 6; 7; 8; 9; and 2 more"


def test_differences_of_tables() -> None:
    expected = {"same": table(1), "gone": table(1), "fewer": table(9), "other": table(2)}
    found = {"same": table(1), "fewer": table(8), "other": table(2, "b"), "new": table(0)}
    assert loading.differences(expected, found, "shop") == [
        "shop lacks the table gone",
        "shop has a table new that the manifest does not know",
        "shop.fewer has 8 rows instead of 9",
        "shop.other has other data than the manifest says",
    ]
    assert loading.differences(expected, expected, "shop") == []


ENTRY = {"character_set": "utf8mb4", "collation": "utf8mb4_unicode_ci"}


def test_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, ...]] = []
    for kind in (Mariadb, Postgresql):
        monkeypatch.setattr(kind, "ask", lambda self, sql, database="": said.append((sql,)))
        monkeypatch.setattr(kind, "load", lambda self, database, file: said.append((database, str(file))))
    loading.load_mariadb("a`b", ENTRY, Path("/f"), Mariadb())
    loading.load_postgresql("stats", {"character_set": "UTF8", "collation": "C.UTF-8"}, Path("/g"), Postgresql())
    assert said == [
        ("CREATE DATABASE `a``b` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",),
        ("a`b", "/f"),
        ("CREATE DATABASE \"stats\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'",),
        ("stats", "/g"),
    ]


@pytest.mark.parametrize(("server", "kind"), [(Mariadb(("-S",), 3), "mariadb"), (Postgresql(("-h",)), "postgresql")])
def test_the_tables_of_a_loaded_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Mariadb | Postgresql, kind: str
) -> None:
    def dump(names: list[str], stage: Path, seconds: float, client: Any) -> list[dumps.Dump]:
        assert (names, stage.is_dir(), seconds, client) == (["shop"], True, server.seconds, server.client)
        # That of the marker comes along where it is there.
        return [dumps.Dump(kind, name, "", 0, "", tables={name: {"rows": 1, "sha256": ""}}) for name in ("m", "shop")]

    monkeypatch.setattr(dumps, kind, dump)
    assert loading.tables_of("shop", server, tmp_path) == {"shop": {"rows": 1, "sha256": ""}}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("read", "ending", "loaded", "said"),
    [
        (5, 0, 5, []),
        (5, 2, 3, []),
        (5, 2, 2, ["Redis cache has 2 keys once it is loaded instead of 5, of which 2 end some day"]),
        (5, 2, 6, ["Redis cache has 6 keys once it is loaded instead of 5, of which 2 end some day"]),
        (4, 0, 4, ["Redis cache has 4 keys in its file instead of 5"]),
    ],
)
def test_redis(monkeypatch: pytest.MonkeyPatch, read: int, ending: int, loaded: int, said: list[str]) -> None:
    class Own:
        def keys(self) -> int:
            return loaded

    @contextlib.contextmanager
    def private(folder: Path, rdb: Path, name: str) -> Iterator[Own]:
        assert (folder, rdb, name) == (Path("/own"), Path("/f.rdb"), "valkey")
        yield Own()

    monkeypatch.setattr(servers, "keys_in", lambda rdb, name: (read, ending))
    monkeypatch.setattr(servers, "private_redis", private)
    assert loading.redis_problems("cache", 5, Path("/f.rdb"), Path("/own"), "valkey") == said
