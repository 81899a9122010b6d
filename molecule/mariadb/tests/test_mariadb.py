"""A server that lets in who is declared, users who may do their work and nothing else, changes that break nothing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from plays import Played, Result, all_hosts, play
from testinfra.host import Host

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
PASSWORDS = {user["name"]: user["password"] for user in SETTINGS["mariadb_users"]}
PID = {"ansible.builtin.command": "systemctl show --value --property MainPID mariadb.service"}


def says(host: Host, user: str, sql: str, password: str | None = None, way: str = "-h 127.0.0.1") -> str:
    """What the server answers to a user; the password goes by the environment."""
    known = PASSWORDS.get(user, "") if password is None else password
    done = host.run(f"MYSQL_PWD={known} mariadb --no-defaults {way} -u {user} --batch -N -e {shlex.quote(sql)}")
    return str(done.stdout + done.stderr).strip()


def root(host: Host, sql: str) -> str:
    return str(host.check_output(f"mariadb -N -e {shlex.quote(sql)}")).strip()


def role(settings: Mapping[str, Any], **keywords: Any) -> dict[str, Any]:
    """A task that applies the role."""
    return {"ansible.builtin.include_role": {"name": "fushuma.production.mariadb", **keywords}, "vars": settings}


def changed(**settings: Any) -> dict[str, Any]:
    return {**deepcopy(SETTINGS), **settings}


def user(name: str, **settings: Any) -> list[dict[str, Any]]:
    """The users, one of them with other settings."""
    return [{**one, **(settings if one["name"] == name else {})} for one in SETTINGS["mariadb_users"]]


def of_role(results: Sequence[Result]) -> list[Result]:
    """What the transactions of the role ended with."""
    return [one for one in results if "paths" in one or (one["failed"] and "mariadb:" in str(one.get("msg")))]


# --- who is let in ---------------------------------------------------------------------------------------------------


def test_it_listens_on_the_loopback_addresses_only(host: Host) -> None:
    listening = {line.split()[3] for line in host.check_output("ss -Hltn").splitlines()}
    assert {one for one in listening if one.endswith(":3306")} == {"127.0.0.1:3306", "[::1]:3306"}


def test_nobody_answers_from_outside(host: Host) -> None:
    address = host.check_output("hostname -I").split()[0]
    for other in all_hosts().values():
        assert "Can't connect" in other.run(f"mariadb --no-defaults -h {address} -u app -e 'SELECT 1' 2>&1").stdout


@pytest.mark.parametrize(
    ("name", "password", "way"),
    [
        ("root", "", "-h 127.0.0.1"),
        ("''", "", "-h 127.0.0.1"),
        ("nobody", "", "-S /run/mysqld/mysqld.sock"),
        ("app", "", "-h 127.0.0.1"),
        ("app", "canary-wrong", "-S /run/mysqld/mysqld.sock"),
        ("mysql", "", "-h 127.0.0.1"),
    ],
)
def test_nobody_else_is_let_in(host: Host, name: str, password: str, way: str) -> None:
    assert "Access denied" in says(host, name, "SELECT 1", password, way)


def test_root_is_root_of_the_host_and_nobody_else(host: Host) -> None:
    assert root(host, "SELECT CURRENT_USER()") == "root@localhost"
    tried = host.run("setpriv --reuid nobody --regid nogroup --clear-groups mariadb -u root -e 'SELECT 1' 2>&1")
    assert "Access denied" in tried.stdout
    accounts = root(host, "SELECT CONCAT(user, '@', host) FROM mysql.user WHERE is_role = 'N'").splitlines()
    declared = {f"{name}@{place}" for name in PASSWORDS for place in ("localhost", "127.0.0.1", "::1")}
    assert set(accounts) == declared | {"root@localhost", "mysql@localhost", "mariadb.sys@localhost"}
    assert "test" not in root(host, "SHOW DATABASES").split()


# --- who may do what -------------------------------------------------------------------------------------------------


@pytest.fixture
def table(host: Host) -> None:
    made = "CREATE TABLE IF NOT EXISTS shop.goods (id INT PRIMARY KEY, name VARCHAR(9)); "
    made += "CREATE OR REPLACE PROCEDURE shop.count_them() SELECT COUNT(*) FROM shop.goods; "
    made += (
        "CREATE OR REPLACE TRIGGER shop.trim_it BEFORE INSERT ON shop.goods FOR EACH ROW SET NEW.name=TRIM(NEW.name)"
    )
    assert says(host, "changer", made) == ""


@pytest.mark.usefixtures("table")
def test_an_application_reads_and_changes_rows(host: Host) -> None:
    assert says(host, "app", "REPLACE INTO shop.goods VALUES (1, 'one'); SELECT name FROM shop.goods") == "one"
    assert says(host, "app", "SELECT name FROM shop.goods", way="-S /run/mysqld/mysqld.sock") == "one"
    assert says(host, "app", "CALL shop.count_them()") == "1"


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DROP TABLE shop.goods", "DROP command denied"),
        ("CREATE TABLE shop.more (i INT)", "CREATE command denied"),
        ("ALTER TABLE shop.goods ADD i INT", "ALTER command denied"),
        ("SELECT * FROM mysql.user", "SELECT command denied"),
        ("SELECT * FROM mysql.global_priv", "SELECT command denied"),
        ("USE other_shop", "Access denied"),
        ("SELECT LOAD_FILE('/etc/passwd')", "NULL"),
        ("SELECT 1 INTO OUTFILE '/var/lib/mysql-files/x'", "Access denied"),
        ("LOAD DATA INFILE '/etc/passwd' INTO TABLE shop.goods", "Access denied"),
        ("SET GLOBAL general_log = 1", "Access denied"),
        ("GRANT SELECT ON shop.* TO figures@localhost", "Access denied"),
        ("CREATE USER evil", "Access denied"),
        ("INSERT INTO shop.goods VALUES (2, 'far longer than it may be')", "Data too long"),
    ],
)
def test_an_application_may_not(host: Host, sql: str, words: str) -> None:
    assert words in says(host, "app", sql)


@pytest.mark.usefixtures("table")
def test_a_client_cannot_be_told_to_send_its_files(host: Host) -> None:
    sent = says(host, "app", "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE shop.goods", way="--local-infile=1")
    assert "local" in sent.lower()
    assert "ERROR" in sent


@pytest.mark.usefixtures("table")
def test_an_exporter_reads_figures_and_no_data(host: Host) -> None:
    assert "Threads_connected" in says(host, "figures", "SHOW GLOBAL STATUS LIKE 'Threads_connected'")
    assert "app" in says(host, "figures", "SHOW GLOBAL VARIABLES LIKE 'hostname'; SELECT 'app'")
    assert says(host, "figures", "SELECT COUNT(*) FROM performance_schema.threads").isdigit()
    assert says(host, "figures", "SHOW SLAVE STATUS; SHOW MASTER STATUS") == ""
    assert "denied" in says(host, "figures", "SELECT * FROM shop.goods")


@pytest.mark.usefixtures("table")
def test_a_backup_has_all_of_it_and_changes_nothing(host: Host) -> None:
    options = "--single-transaction --quick --routines --triggers --events --databases shop other_shop"
    dumped = host.run(f"MYSQL_PWD={PASSWORDS['saver']} mariadb-dump -h 127.0.0.1 -u saver {options}")
    assert (dumped.rc, dumped.stderr) == (0, "")
    for part in ("INSERT INTO `goods`", "PROCEDURE `count_them`", "trim_it", "`other_shop`"):
        assert part in dumped.stdout
    assert "insufficient" not in dumped.stdout
    assert "denied" in says(host, "saver", "DELETE FROM shop.goods")


# --- the server ------------------------------------------------------------------------------------------------------


def test_variables(host: Host) -> None:
    asked = dict(line.split("\t") for line in root(host, "SHOW GLOBAL VARIABLES").splitlines() if line.count("\t") == 1)
    wanted = {
        "local_infile": "OFF",
        "secure_file_priv": "/var/lib/mysql-files/",
        "skip_name_resolve": "ON",
        "have_symlink": "DISABLED",
        "slow_query_log": "ON",
        "long_query_time": "1.000000",
        "innodb_buffer_pool_size": str(256 * 1024**2),
        "max_connections": "151",
        "character_set_server": "utf8mb4",
        "log_bin": "OFF",
    }
    assert {name: asked[name] for name in wanted} == wanted
    assert "STRICT_TRANS_TABLES" in asked["sql_mode"]
    assert root(host, "SELECT default_collation_name FROM information_schema.schemata WHERE schema_name='shop'") == (
        "utf8mb4_unicode_ci"
    )


def test_the_server_is_shut_in(host: Host) -> None:
    level = host.check_output("systemd-analyze security mariadb.service").splitlines()[-1]
    assert float(level.split(":")[1].split()[0]) < 2.5, level


def test_figures_of_the_budget(host: Host) -> None:
    figures = host.file("/var/lib/prometheus/node-exporter/mariadb_connection_budget.prom").content_string
    assert "\nmariadb_connection_budget_max 151\n" in figures
    assert "\nmariadb_connection_budget_wanted 0\n" in figures
    assert "\nmariadb_connection_budget_reserved 10\n" in figures


def test_secrets_are_not_lying_about(host: Host) -> None:
    accounts = host.file("/etc/mysql/accounts.json")
    assert (accounts.mode, accounts.user, accounts.group) == (0o600, "root", "root")
    assert host.run("grep -rl canary /etc/mysql /var/log/mysql /var/lib/mysql /run/mariadb* /usr/local").stdout == ""
    assert "canary" not in host.check_output("ps -eo args")


# --- changes ---------------------------------------------------------------------------------------------------------

DRIFT = """
CREATE TABLE IF NOT EXISTS shop.goods (id INT PRIMARY KEY, name VARCHAR(9));
CREATE OR REPLACE PROCEDURE shop.count_them() SELECT COUNT(*) FROM shop.goods;
GRANT ALL ON *.* TO app@localhost WITH GRANT OPTION; REVOKE SELECT ON shop.* FROM app@'127.0.0.1';
GRANT SELECT (id) ON shop.goods TO figures@localhost; GRANT UPDATE ON shop.goods TO figures@localhost;
CREATE ROLE IF NOT EXISTS keepers; GRANT keepers TO figures@localhost; GRANT PROXY ON root@localhost TO app@localhost;
GRANT EXECUTE ON PROCEDURE shop.count_them TO figures@localhost WITH GRANT OPTION; GRANT SELECT ON shop.* TO PUBLIC;
DROP USER changer@localhost; ALTER USER saver@localhost IDENTIFIED BY 'never-declared' ACCOUNT LOCK;
CREATE USER ''@localhost; CREATE USER root@'%'; CREATE USER app@'10.%'; CREATE USER friend@localhost;
CREATE DATABASE test; ALTER DATABASE other_shop CHARACTER SET latin1; DROP DATABASE IF EXISTS spare
"""


@pytest.fixture(scope="module")
def healed() -> Played:
    """Hands change much, and the next runs see it."""
    dry = role(SETTINGS, apply={"check_mode": True})
    drift, left, cleared = (
        {"ansible.builtin.command": {"argv": ["mariadb", "-N", "-e", sql]}}
        for sql in (DRIFT, "SELECT user FROM mysql.user", "DROP USER friend@localhost; DROP ROLE keepers")
    )
    played = play(PID, drift, dry, role(SETTINGS), role(SETTINGS), left, PID, cleared)
    assert played.code == 0, played.output
    return played


def test_what_hands_have_changed_is_healed_without_a_restart(host: Host, healed: Played) -> None:
    results = healed.results[host.backend.host]
    dry, done, again = of_role(results)
    assert (dry["changed"], done["changed"], again["changed"]) == (True, True, False)
    assert dry["commands"] == done["commands"] == ["/usr/bin/python3 -I /usr/local/lib/mariadb-production.py apply"]
    before, after = (one["stdout"] for one in results if "MainPID" in str(one.get("cmd")))
    assert before == after
    left = next(one["stdout"] for one in results if "mysql.user" in str(one.get("cmd")))
    assert "friend" in left.split(), "nobody declared it"
    roots = root(host, "SELECT CONCAT(user, '@', host) FROM mysql.user WHERE user IN ('root', '')")
    assert roots == "root@localhost"
    assert "ALL PRIVILEGES" not in root(host, "SHOW GRANTS FOR app@localhost")
    rights = root(host, "SHOW GRANTS FOR figures@localhost")
    assert "shop" not in rights
    assert "keepers" not in rights
    assert "PROXY" not in root(host, "SHOW GRANTS FOR app@localhost")
    assert says(host, "changer", "SELECT 1", way="-S /run/mysqld/mysqld.sock") == "1"
    assert says(host, "saver", "SELECT 1", way="-S /run/mysqld/mysqld.sock") == "1"
    assert "denied" in says(host, "figures", "SELECT * FROM shop.goods")


def test_a_password_changes_without_a_failed_request(host: Host) -> None:
    """Alone on its host; what it leaves is what the scenario wants."""
    limit = ("--diff", "--limit", host.backend.host)
    former, new = PASSWORDS["app"], "canary-app-next-c41b7e90"
    # Somebody asks with the former password all the time, each time over a new connection; somebody else stays.
    login = "mariadb --no-defaults -h 127.0.0.1 -u app"
    asking = "rm -f /run/failed /run/asked; while [ ! -e /run/enough ]; do "
    asking += f"{login} -e 'SELECT 1' >/dev/null 2>>/run/failed; echo >>/run/asked; done"
    host.check_output("rm -f /run/enough")
    for script in (asking, f"sleep 60 | {login}"):
        host.check_output(f"MYSQL_PWD={former} systemd-run -q -E MYSQL_PWD sh -c {shlex.quote(script)}")
    both = changed(mariadb_users=user("app", password=new, former_password=former))
    assert play(role(both), arguments=limit).code == 0
    assert [says(host, "app", "SELECT 1", one) for one in (former, new)] == ["1", "1"]
    host.check_output("touch /run/enough; sleep 0.3")
    assert host.file("/run/failed").content_string == ""
    assert len(host.file("/run/asked").content_string) > 10
    played = play(role(changed(mariadb_users=user("app", password=new))), arguments=limit)
    assert played.code == 0
    assert says(host, "app", "SELECT 1", new) == "1"
    assert "Access denied" in says(host, "app", "SELECT 1", former)
    assert root(host, "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app'") == "1", "sessions stay"
    gone = changed(mariadb_users=[*SETTINGS["mariadb_users"][:3], {"name": "saver", "state": "absent"}])
    assert play(role(gone), role(SETTINGS), arguments=limit).code == 0
    assert says(host, "saver", "SELECT 1") == "1"


@pytest.fixture(scope="module")
def refused() -> Played:
    """Changes that the server does not take, one after the other; the last one keeps it from starting."""
    stranger = {"name": "stranger", "password": "canary-stranger-8841", "databases": ["shop"]}
    tasks = [
        PID,
        role(changed(mariadb_settings={"no_such_thing": 1})),
        role(changed(mariadb_settings={"innodb_flush_log_at_trx_commit": 9})),
        role(changed(mariadb_settings={"innodb_large_prefix": True})),
        role(changed(mariadb_memory="900gb")),
        PID,
        role(
            changed(mariadb_settings={"innodb_page_size": "8k"}, mariadb_users=[*SETTINGS["mariadb_users"], stranger])
        ),
        {"ansible.builtin.command": {"argv": ["mariadb", "-N", "-e", "SELECT user FROM mysql.user"]}},
        role(SETTINGS),
    ]
    return play(*tasks)


def test_what_the_server_does_not_take_is_never_activated(host: Host, refused: Played) -> None:
    results = refused.results[host.backend.host]
    unknown, odd, removed, large, broken, last = of_role(results)
    for result, words in (
        (unknown, "unknown variable 'no_such_thing=1'"),
        (odd, "innodb-flush-log-at-trx-commit"),
        (removed, "was removed"),
        (large, "of which three quarters can be had"),
        (broken, "systemctl restart mariadb.service"),
    ):
        assert result["failed"]
        assert words in result["msg"]
        assert "The former configuration is back" in result["msg"]
    before, after = (one["stdout"] for one in results if "MainPID" in str(one.get("cmd")))
    assert before == after, "the running server has not seen the first four"
    assert "stranger" not in next(one["stdout"] for one in results if "mysql.user" in str(one.get("cmd"))).split()
    assert (last["failed"], last["changed"]) == (False, False)
    assert says(host, "app", "SELECT 1") == "1"


def test_a_server_that_was_stopped_starts_with_what_is_declared(host: Host) -> None:
    """Alone on its host: what was changed while nobody looked is gone after a start."""
    root(host, "DROP USER app@'127.0.0.1'")
    host.check_output("systemctl restart mariadb.service")
    assert says(host, "app", "SELECT 1") == "1"
