# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers for a restore: how they are asked, loaded and started, and that a private one ends whatever happens."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import programs, servers
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Done, Failure
from ansible_collections.fushuma.production.plugins.module_utils.backup.servers import Mariadb, Postgresql, Redis

Call = tuple[list[str], dict[str, Any]]


class Programs:
    """Stands for all programs: what each call gets is decided by ``answer``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Call] = []
        self.answer: Callable[[list[str], dict[str, Any]], Done] = lambda argv, options: Done(0, "", "")
        monkeypatch.setattr(programs, "run", self.run)

    def run(self, argv: Sequence[str], **options: Any) -> Done:
        if options.get("stdin"):
            options["stdin"] = options["stdin"].read()
        self.calls.append((list(argv), options))
        done = self.answer(list(argv), options)
        if options.get("stdout"):
            options["stdout"].write(done.out.encode())
        return done


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(monkeypatch)


def test_names_and_texts_in_sql() -> None:
    assert servers.quoted("a`b") == "`a``b`"
    assert servers.text("a'b\\") == "'a''b\\\\'"
    assert servers.identifier('a"b') == '"a""b"'


def test_mariadb_is_asked_by_standard_input(fake: Programs) -> None:
    fake.answer = lambda argv, options: Done(0, "a\t1\nb\t2\n", "")
    assert Mariadb().ask("SELECT 1", "shop") == [["a", "1"], ["b", "2"]]
    argv, options = fake.calls[0]
    assert argv[0] == "/usr/bin/mariadb"
    assert argv[-1] == "--database=shop"
    assert "--skip-column-names" in argv
    assert options["text"] == "SELECT 1"


def test_what_mariadb_refuses_is_said_without_the_data(fake: Programs, tmp_path: Path) -> None:
    refused = Done(
        1, "", "--------------\nINSERT INTO t VALUES ('secret')\n--------------\n\nERROR 1146 (42S02): no table"
    )
    fake.answer = lambda argv, options: refused
    with pytest.raises(Failure, match=re.escape("The server says: ERROR 1146 (42S02): no table")) as caught:
        Mariadb().ask("x")
    assert "secret" not in str(caught.value)
    (tmp_path / "shop.sql").write_text("SELECT 1;")
    with pytest.raises(Failure, match=r"shop.sql could not be loaded into shop: ERROR 1146"):
        Mariadb().load("shop", tmp_path / "shop.sql")
    argv, options = fake.calls[1]
    assert "--binary-mode" in argv
    assert options["stdin"] == b"SELECT 1;"
    with pytest.raises(Failure, match="mariadb-dump ended with 1: ERROR 1146"):
        Mariadb().dump(["shop"], tmp_path / "again.sql")


def test_a_dump_is_appended(fake: Programs, tmp_path: Path) -> None:
    fake.answer = lambda argv, options: Done(0, "more", "")
    (tmp_path / "file").write_text("some, ")
    Mariadb(("--socket=/s",), 7).dump(["--skip-triggers", "--", "shop"], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "some, more"
    argv, options = fake.calls[0]
    assert argv[0] == "/usr/bin/mariadb-dump"
    assert argv[-4:] == ["--socket=/s", "--skip-triggers", "--", "shop"]
    assert not {"--triggers", "--routines", "--events"} & set(argv)
    assert options["seconds"] == 7


def test_accounts_in_whose_name_views_work(fake: Programs) -> None:
    fake.answer = lambda argv, options: Done(0, "app@10.%\nro'le@\nkeepers\n", "")
    servers.have_definers(Mariadb())
    assert [options["text"] for _argv, options in fake.calls[1:]] == [
        "CREATE USER IF NOT EXISTS 'app'@'10.%' ACCOUNT LOCK; GRANT ALL ON *.* TO 'app'@'10.%'",
        "CREATE USER IF NOT EXISTS 'ro''le'@'' ACCOUNT LOCK; GRANT ALL ON *.* TO 'ro''le'@''",
    ]


@pytest.mark.parametrize(
    "done", [Done(1, "", "Could not connect"), Done(0, "NOAUTH Authentication required.\n", ""), Done(0, "ERR x\n", "")]
)
def test_redis_that_refuses(fake: Programs, done: Done) -> None:
    fake.answer = lambda argv, options: done
    with pytest.raises(Failure, match="Redis says: "):
        Redis(("redis-cli",)).ask("ping")


def test_keys_of_redis(fake: Programs) -> None:
    said = "# Keyspace\r\ndb0:keys=4,expires=1,avg_ttl=0\r\ndb3:keys=2,expires=0,avg_ttl=0\r\n"
    fake.answer = lambda argv, options: Done(0, said, "")
    assert Redis(("redis-cli", "-s", "/s")).keys() == 6
    assert fake.calls[0][0] == ["redis-cli", "-s", "/s", "info", "keyspace"]


def test_keys_in_a_file(fake: Programs, tmp_path: Path) -> None:
    said = "[offset 9] \\o/ RDB looks OK! \\o/\n[info] 5 keys read\n[info] 1 expires\n[info] 0 already expired\n"
    fake.answer = lambda argv, options: Done(0, said, "")
    assert servers.keys_in(tmp_path / "dump.rdb", "valkey") == (5, 1)
    assert fake.calls[0][0] == ["/usr/bin/valkey-check-rdb", str(tmp_path / "dump.rdb")]
    broken = "[offset 0] Checking\n--- RDB ERROR DETECTED ---\n[offset 785] RDB CRC error\n[info] 5 keys read\n"
    fake.answer = lambda argv, options: Done(1, broken, "")
    with pytest.raises(Failure, match=r"dump.rdb is not whole: .*RDB CRC error"):
        servers.keys_in(tmp_path / "dump.rdb")


ROLES = """\
CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:x';
CREATE ROLE "O""x";
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER;
GRANT app TO "O""x";
"""


def test_roles_of_postgresql(fake: Programs, tmp_path: Path) -> None:
    assert servers.roles_without({"postgres", "app"}, ROLES) == ['CREATE ROLE "O""x";']
    (tmp_path / "globals.sql").write_text(ROLES)
    fake.answer = lambda argv, options: Done(0, 'postgres\nO"x\n', "")
    Postgresql().have_roles(tmp_path / "globals.sql")
    assert fake.calls[1][1]["text"].splitlines() == ROLES.splitlines()[:2]


def test_postgresql_is_asked_and_loaded_as_its_user(fake: Programs, tmp_path: Path) -> None:
    fake.answer = lambda argv, options: Done(0, "1\t2\n", "")
    assert Postgresql(("--host=/s",), "pg").ask("SELECT 1, 2", "a'b") == [["1", "2"]]
    argv, _options = fake.calls[0]
    assert argv[0] == "/usr/bin/setpriv"
    assert "--reuid=pg" in argv
    assert "--dbname=dbname='a\\'b'" in argv
    (tmp_path / "stats.sql").write_text("SELECT 1;")
    Postgresql().load("stats", tmp_path / "stats.sql")
    assert fake.calls[1][1]["stdin"] == b"SELECT 1;"


def test_which_programs_of_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "CLUSTERS", tmp_path)
    with pytest.raises(Failure, match="PostgreSQL's server is not installed"):
        servers.binaries()
    for version in ("9", "15", "17"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "initdb").touch()
    (tmp_path / "18").mkdir()
    assert servers.binaries("15.6 (Debian 15.6-1)") == tmp_path / "15" / "bin"
    assert servers.binaries("16.1") == tmp_path / "17" / "bin"


# --- private servers --------------------------------------------------------------------------------------------------


@pytest.fixture
def me(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every user is the one that runs the tests."""
    monkeypatch.setattr(servers.shutil, "chown", lambda path, user, group: None)  # type: ignore[attr-defined]


class Server:
    """In the place of a server's program: it writes its arguments into its log, and stays or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, program: str = "import time; time.sleep(60)") -> None:
        self.started: list[list[str]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        real = subprocess.Popen

        def popen(argv: Sequence[str], **options: Any) -> Any:
            self.started.append(list(argv))
            self.processes.append(real([sys.executable, "-c", program], **options))
            return self.processes[-1]

        monkeypatch.setattr(servers.subprocess, "Popen", popen)  # type: ignore[attr-defined]

    def gone(self) -> bool:
        return all(one.returncode is not None for one in self.processes)


def test_a_private_mariadb(fake: Programs, me: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, asked = Server(monkeypatch), []

    def answer(argv: list[str], options: dict[str, Any]) -> Done:
        asked.append(argv[0])
        # The first question comes too early.
        return Done(1, "", "ERROR 2002") if len(asked) == 2 else Done(0, "1\n", "")

    fake.answer = answer
    with servers.private_mariadb(tmp_path / "mariadb", 9) as own:
        assert own == Mariadb((f"--socket={tmp_path}/mariadb/mariadb.sock", "--user=root"), 9)
        assert not server.gone()
    assert server.gone()
    argv = server.started[0]
    assert argv[:2] == ["/usr/bin/choom", "--adjust=1000"]
    assert {"--reuid=mysql", "--pdeathsig=KILL", "--skip-networking", "--event-scheduler=OFF"} <= set(argv)
    assert asked == ["/usr/bin/mariadb-install-db", "/usr/bin/mariadb", "/usr/bin/mariadb"]


def test_a_private_redis(fake: Programs, me: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch)
    (tmp_path / "file.rdb").write_text("data")
    fake.answer = lambda argv, options: Done(0, "PONG\n", "")
    with servers.private_redis(tmp_path / "redis", tmp_path / "file.rdb", "valkey") as own:
        assert own.cli == ("/usr/bin/valkey-cli", "-s", f"{tmp_path}/redis/redis.sock")
        assert (tmp_path / "redis" / "dump.rdb").read_text() == "data"
    assert server.gone()
    assert "/usr/bin/valkey-server" in server.started[0]
    assert f"--port 0 --unixsocket {tmp_path}/redis/redis.sock" in " ".join(server.started[0])


def test_a_private_postgresql(fake: Programs, me: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch)
    monkeypatch.setattr(servers, "binaries", lambda version: Path(f"/pg/{version}"))
    fake.answer = lambda argv, options: Done(0, "1\n", "")
    with servers.private_postgresql(tmp_path / "pg", "15", 9) as own:
        assert own.client == (f"--host={tmp_path}/pg",)
    assert server.gone()
    assert "--listen_addresses=" in server.started[0]
    assert "/pg/15/postgres" in server.started[0]


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_private_server_that_cannot_be_set_up(
    fake: Programs, me: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(servers, "binaries", lambda version: Path("/pg"))
    fake.answer = lambda argv, options: Done(1, "", "no space left")
    with (
        pytest.raises(Failure, match="could be set up: no space left"),
        getattr(servers, f"private_{kind}")(tmp_path / "folder"),
    ):
        raise AssertionError("it runs")


def test_a_host_without_the_servers_user(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="This host has no user nobody-has-this-name"):
        servers.own_folder(tmp_path / "folder", "nobody-has-this-name")


@pytest.mark.parametrize(
    ("program", "said"), [("print('broken'); exit(3)", "ended with 3: broken"), ("", "ended with 0")]
)
def test_a_private_server_that_does_not_start(
    fake: Programs, me: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    server = Server(monkeypatch, program)
    fake.answer = lambda argv, options: Done(int("install" not in argv[0]), "", "ERROR 2002")
    with (
        pytest.raises(Failure, match=f"The private server of mariadb {said}"),
        servers.private_mariadb(tmp_path / "mariadb"),
    ):
        raise AssertionError("it runs")
    assert server.gone()


def test_a_private_server_that_never_answers(
    fake: Programs, me: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)
    monkeypatch.setattr(servers, "PATIENCE", 0.05)
    fake.answer = lambda argv, options: Done(0, "", "")
    with pytest.raises(Failure, match="does not answer"), servers.private_mariadb(tmp_path / "mariadb"):
        raise AssertionError("it runs")
    assert server.gone()


def test_a_private_server_that_does_not_end_when_asked(
    fake: Programs, me: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "deaf"
    program = (
        "import pathlib, signal, time; signal.signal(signal.SIGQUIT, signal.SIG_IGN);"
        f"pathlib.Path({str(mark)!r}).touch(); time.sleep(60)"
    )
    server = Server(monkeypatch, program)
    monkeypatch.setattr(servers, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(servers, "binaries", lambda version: Path("/pg"))
    fake.answer = lambda argv, options: Done(0, "1\n" if mark.exists() or "initdb" in argv[-3] else "", "")
    with servers.private_postgresql(tmp_path / "pg"):
        pass
    assert server.gone()
    assert server.processes[0].returncode == -9


# --- units and waiting ------------------------------------------------------------------------------------------------


def test_units(fake: Programs) -> None:
    servers.unit("stop", "redis-server@cache.service")
    assert fake.calls[0][0] == ["/usr/bin/systemctl", "stop", "redis-server@cache.service"]
    fake.answer = lambda argv, options: Done(1, "", "not found")
    with pytest.raises(Failure, match=r"systemctl start x\.service: not found"):
        servers.unit("start", "x.service")


def test_waiting() -> None:
    answers = iter([Failure("not yet"), False, True])

    def condition() -> bool:
        answer = next(answers)
        if isinstance(answer, Failure):
            raise answer
        return answer

    servers.wait_until(condition, 10, "it")
    with pytest.raises(Failure, match="Not within 0 s: an answer"):
        servers.wait_until(lambda: False, 0, "an answer")


def test_the_folder_of_a_server_is_its_alone(me: None, tmp_path: Path) -> None:
    servers.own_folder(tmp_path / "own", "mysql")
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
