# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program on a host with MariaDB: what differs, how it is brought about, and what a server does not take."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import mariadb
from ansible_collections.fushuma.production.plugins.module_utils.mariadb import found_in, main, statements

HASH = "*54958E764CE10E50764C2EECBB71D01F08549980"
OTHER = "*6BB4837EB74329105EE4568DDA7DC67ED2CA2AD9"
ACCOUNT = {
    "user": "app",
    "host": "localhost",
    "hashes": [HASH],
    "tls": False,
    "connections": 0,
    "rights": {"`shop`.*": ["INSERT", "SELECT"]},
}
WANTED = {
    "databases": [{"name": "shop", "character_set": "utf8mb4", "collation": "utf8mb4_unicode_ci"}],
    "accounts": [ACCOUNT],
    "absent": ["former"],
}
ROOT = 'account\troot\tlocalhost\t{"plugin":"unix_socket","authentication_string":"","auth_or":[{}]}'
APP: dict[str, Any] = {"plugin": "mysql_native_password", "authentication_string": HASH}
NAME = "'app'@'localhost'"
CREATE = (
    f"CREATE USER {NAME} IDENTIFIED VIA mysql_native_password USING '{HASH}' "
    "REQUIRE NONE WITH MAX_USER_CONNECTIONS 0 ACCOUNT UNLOCK"
)
GRANT = f"GRANT INSERT, SELECT ON `shop`.* TO {NAME}"


def answer(*rows: str, app: dict[str, Any] | None = APP) -> str:
    """What a server says that has all that is wanted, and these rows besides."""
    own = [
        "database\tshop\tutf8mb4\tutf8mb4_unicode_ci",
        ROOT,
        f"right\t{NAME}\t*.*\tUSAGE\tNO",
        f"right\t{NAME}\t`shop`.*\tSELECT\tNO",
        f"right\t{NAME}\t`shop`.*\tINSERT\tNO",
    ]
    if app is not None:
        own.append(f"account\tapp\tlocalhost\t{json.dumps(app)}")
    return "".join(f"{row}\n" for row in (*own, *rows))


def todo(*rows: str, app: dict[str, Any] | None = APP, **account: Any) -> list[str]:
    return statements({**WANTED, "accounts": [{**ACCOUNT, **account}]}, found_in(answer(*rows, app=app)))


def test_a_server_that_has_what_is_wanted() -> None:
    assert todo() == []
    assert todo('account\tkeepers\t\t{"is_role":true}', "database\twine\tlatin1\tlatin1_swedish_ci") == []
    assert todo(app={**APP, "auth_or": [{}], "ssl_type": 0, "max_user_connections": 0, "account_locked": False}) == []
    assert todo('account\tfriend\tlocalhost\t{"plugin":"ed25519"}') == [], "nobody declared it"


def test_a_bare_server() -> None:
    assert statements(WANTED, found_in(ROOT)) == [
        "CREATE DATABASE `shop` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
        CREATE,
        GRANT,
    ]


ALTER = CREATE.replace("CREATE USER", "ALTER USER")
BOTH = {**APP, "auth_or": [{}, {"plugin": "mysql_native_password", "authentication_string": OTHER}]}


@pytest.mark.parametrize(
    ("app", "account", "wanted"),
    [
        ({**APP, "authentication_string": OTHER}, {}, ALTER),
        ({**APP, "plugin": "ed25519"}, {}, ALTER),
        (BOTH, {}, ALTER),
        ({**APP, "ssl_type": 2}, {}, ALTER),
        ({**APP, "account_locked": True}, {}, ALTER),
        ({**APP, "max_user_connections": 3}, {}, ALTER),
        (BOTH, {"hashes": [HASH, OTHER]}, None),
        (APP, {"hashes": [HASH, OTHER]}, ALTER.replace(HASH, f"{HASH}' OR mysql_native_password USING '{OTHER}")),
        ({**APP, "ssl_type": 1}, {"tls": True}, None),
        (APP, {"tls": True}, ALTER.replace("NONE", "SSL")),
        (APP, {"connections": 7}, ALTER.replace("CONNECTIONS 0", "CONNECTIONS 7")),
    ],
)
def test_how_an_account_is_let_in(app: dict[str, Any], account: dict[str, Any], wanted: str | None) -> None:
    assert todo(app=app, **account) == ([wanted] if wanted else [])


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ("`shop`.*\tDROP\tNO", [f"REVOKE DROP ON `shop`.* FROM {NAME}"]),
        ("`wine`.*\tSELECT\tYES", [f"REVOKE {one} ON `wine`.* FROM {NAME}" for one in ("GRANT OPTION", "SELECT")]),
        ("*.*\tUSAGE\tYES", [f"REVOKE GRANT OPTION ON *.* FROM {NAME}"]),
        ("`shop`.`goods`\tSELECT (`id`)\tNO", [f"REVOKE SELECT (`id`) ON `shop`.`goods` FROM {NAME}"]),
        ("PROCEDURE `shop`.`p`\tALL PRIVILEGES\tNO", [f"REVOKE ALL PRIVILEGES ON PROCEDURE `shop`.`p` FROM {NAME}"]),
        ("ROLE\t`keepers`\tNO", [f"REVOKE `keepers` FROM {NAME}"]),
        ("PROXY\t'root'@'%'\tNO", [f"REVOKE PROXY ON 'root'@'%' FROM {NAME}"]),
    ],
)
def test_rights_that_are_too_much_are_taken_away(row: str, wanted: list[str]) -> None:
    assert todo(f"right\t{NAME}\t{row}") == wanted


def test_what_is_missing_is_granted_before_anything_is_taken_away() -> None:
    assert todo(rights={"`shop`.*": ["UPDATE"], "*.*": ["PROCESS"]}) == [
        f"GRANT PROCESS ON *.* TO {NAME}",
        f"GRANT UPDATE ON `shop`.* TO {NAME}",
        f"REVOKE INSERT ON `shop`.* FROM {NAME}",
        f"REVOKE SELECT ON `shop`.* FROM {NAME}",
    ]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ("account\t\tlocalhost\t{}", "DROP USER ''@'localhost'"),
        ("account\troot\t%\t{}", "DROP USER 'root'@'%'"),
        ("account\tformer\tlocalhost\t{}", "DROP USER 'former'@'localhost'"),
        ("account\tapp\t10.%\t{}", "DROP USER 'app'@'10.%'"),
        (
            'account\tmysql\tlocalhost\t{"plugin":"mysql_native_password","auth_or":[{},{"plugin":"unix_socket"}]}',
            "ALTER USER 'mysql'@'localhost' IDENTIFIED VIA unix_socket",
        ),
        ("database\ttest\tutf8mb4\tutf8mb4_general_ci", "DROP DATABASE `test`"),
        (
            "database\tshop\tlatin1\tlatin1_swedish_ci",
            "ALTER DATABASE `shop` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
        ),
    ],
)
def test_what_nobody_may_have(row: str, wanted: str) -> None:
    assert todo(row) == [wanted]


def test_a_test_database_with_something_in_it_stays() -> None:
    assert todo("database\ttest\tutf8mb4\tutf8mb4_general_ci", "tables\ttest\t1") == []


def test_rights_of_everybody_are_taken_away() -> None:
    rows = ('account\tPUBLIC\t\t{"is_role":true}', "right\t'PUBLIC'@''\t`test`.*\tSELECT\tNO")
    assert todo(*rows) == ["REVOKE SELECT ON `test`.* FROM PUBLIC"]


# --- the program -----------------------------------------------------------------------------------------------------


class Server:
    """Programs that play the server, and the files about it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.program("systemctl", f"cat {folder}/state")
        self.program(
            "mariadb",
            f"cat >{folder}/told; cat {folder}/told >>{folder}/all; cat {folder}/answer; exit $(cat {folder}/code)",
        )
        self.program("mariadbd", f"cat {folder}/help; cat {folder}/complaints >&2; exit $(cat {folder}/code)")
        for name, text in (
            ("state", "active\nrunning\n"),
            ("answer", answer()),
            ("code", "0"),
            ("complaints", "2026-11-26 2:30:38 0 [Warning] Could not increase number of max_open_files\n"),
            ("help", "max-connections   100\nsort-buffer-size    2097152\nsocket  /run/x\n"),
            ("meminfo", "MemTotal:        2097152 kB\n"),
        ):
            self.write(name, text)
        self.write("accounts.json", json.dumps(WANTED))

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def told(self) -> list[str]:
        """All statements besides the questions."""
        path = self.folder / "all"
        text = path.read_text("utf-8") if path.exists() else ""
        return [line for line in text.replace(mariadb.QUESTIONS, "").splitlines() if line]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server(tmp_path)
    monkeypatch.setenv("PATH", f"{server.programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(mariadb, "CLIENT", (str(server.programs / "mariadb"),))
    monkeypatch.setattr(mariadb, "SERVER", str(server.programs / "mariadbd"))
    monkeypatch.setattr(mariadb, "ACCOUNTS", tmp_path / "accounts.json")
    monkeypatch.setattr(mariadb, "BROUGHT", tmp_path / "brought.json")
    monkeypatch.setattr(mariadb, "TAKEN_BACK", tmp_path / "taken_back.json")
    monkeypatch.setattr(mariadb, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(mariadb, "CGROUP", tmp_path / "cgroup")
    return server


def test_nothing_is_told_where_nothing_differs(server: Server) -> None:
    assert [main([one]) for one in ("check", "apply", "check")] == [0, 0, 0]
    assert server.told() == []


def test_what_differs_is_said_without_a_hash_and_brought_about(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.write("answer", answer(app=None))
    assert main(["check"]) == 1
    said = capsys.readouterr().err
    assert f"the running server lacks: CREATE USER {NAME}" in said
    assert HASH not in said
    assert server.told() == []
    assert main(["apply"]) == 0
    assert server.told() == [f"{CREATE};"]
    assert json.loads((server.folder / "brought.json").read_text()) == [NAME]


@pytest.mark.parametrize("keeps_running", [True, False])
def test_a_change_that_is_taken_back_takes_its_users_back(server: Server, keeps_running: bool) -> None:
    server.write("answer", answer(app=None))
    assert main(["apply"]) == 0
    (server.folder / "all").unlink()
    (server.folder / "accounts.json").unlink()
    server.write("answer", answer())
    if not keeps_running:
        server.write("state", "failed\nfailed\n")
        assert main(["undo"]) == 0
        assert server.told() == []
        server.write("state", "activating\nstart-post\n")
        assert main(["apply"]) == 0
    else:
        assert main(["undo"]) == 0
    assert server.told() == [f"DROP USER IF EXISTS {NAME};"]
    assert main(["apply"]) == 0
    assert len(server.told()) == 1, "once is enough"


def test_a_change_that_brought_nobody_takes_nobody_away(server: Server) -> None:
    assert main(["undo"]) == 0
    assert server.told() == []


@pytest.mark.parametrize("state", ["inactive\ndead\n", "activating\nstart\n", ""])
def test_a_server_that_does_not_run_is_passed_over(server: Server, state: str) -> None:
    server.write("state", state)
    server.write("code", "1")
    assert [main([one]) for one in ("check", "apply", "undo")] == [0, 0, 0]


def test_the_unit_may_ask_while_it_starts(server: Server) -> None:
    server.write("state", "activating\nstart-post\n")
    server.write("answer", ROOT)
    assert main(["check"]) == 1


def test_what_the_server_says_is_told_without_a_hash(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.program("mariadb", f"echo \"ERROR 1064 at line 1: near '{HASH}'\" >&2; exit 1")
    assert [main([one]) for one in ("check", "apply")] == [1, 1]
    assert capsys.readouterr().err == "the server says: ERROR 1064 at line 1: near '*...'\n" * 2


def test_a_configuration_that_the_server_takes(server: Server) -> None:
    assert main(["try"]) == 0


@pytest.mark.parametrize(
    ("complaint", "words"),
    [
        ("[ERROR] /usr/sbin/mariadbd: unknown variable 'no_such=1'", "unknown variable 'no_such=1'"),
        ("[Warning] option 'x': unsigned value 9 adjusted to 3", "unsigned value 9 adjusted to 3"),
        ("[Warning] option 'x': boolean value 'y' wasn't recognized. Set to OFF.", "wasn't recognized"),
        ("[Warning] 'innodb-large-prefix' was removed. It does nothing now", "was removed"),
    ],
)
def test_a_configuration_that_it_does_not_take(
    server: Server, capsys: pytest.CaptureFixture[str], complaint: str, words: str
) -> None:
    server.write("complaints", f"2026-11-26 2:30:38 0 {complaint}\n")
    assert main(["try"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("the server does not take its configuration: ")
    assert words in said
    assert "2026" not in said


def test_a_server_that_ends_without_a_reason(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.write("code", "1")
    assert main(["try"]) == 1
    assert "max_open_files" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["memory.max", "system.slice/mariadb.service/memory.max", ""])
def test_memory_that_the_host_does_not_have(server: Server, capsys: pytest.CaptureFixture[str], limit: str) -> None:
    server.write("help", "max-connections   200\ninnodb-buffer-pool-size  536870912\n")
    server.write("cgroup/memory.max", "max\n")
    assert main(["try"]) == 0
    if limit:
        server.write(f"cgroup/{limit}", f"{1024**3}\n")
    else:
        server.write("meminfo", "MemTotal:        1048576 kB\n")
    assert main(["try"]) == 1
    assert capsys.readouterr().err == (
        "mariadb_memory and mariadb_max_connections ask for 1375 MB of memory (784 MB of buffers, and 200 connections "
        "of up to 3.0 MB), and this host has 1024 MB, of which three quarters can be had\n"
    )


@pytest.mark.parametrize("arguments", [[], ["drop"], ["check", "apply"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Usage" in capsys.readouterr().err
