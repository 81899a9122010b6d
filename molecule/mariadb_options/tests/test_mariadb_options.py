"""Every option away from its default."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
from testinfra.host import Host

PASSWORD = "canary-app-71d0e2c94fa8"
TLS = "--ssl-ca=/srv/tls/chain.pem --ssl-verify-server-cert"


def login(host: Host, user: str, password: str) -> str:
    """Options with which a client knows the password; without one in a file, newer ones do not verify certificates."""
    host.check_output(f"umask 077; printf '[client]\\nuser={user}\\npassword={password}\\n' >/run/client.cnf")
    return "--defaults-file=/run/client.cnf -P 3307"


def says(host: Host, way: str, sql: str = "SELECT 1", password: str = PASSWORD) -> str:
    done = host.run(f"mariadb {login(host, 'app', password)} {way} --batch -N -e {shlex.quote(sql)}")
    return str(done.stdout + done.stderr).strip()


def root(host: Host, sql: str) -> str:
    return str(host.check_output(f"mariadb -N -e {shlex.quote(sql)}")).strip()


@pytest.fixture
def addresses(host: Host) -> Iterator[None]:
    """The address on which it listens, which comes after the server, and one of a trusted network."""
    for address in ("10.99.0.1", "10.98.0.1"):
        host.check_output(f"ip address add {address}/32 dev lo")
    yield
    for address in ("10.99.0.1", "10.98.0.1"):
        host.check_output(f"ip address del {address}/32 dev lo")


def test_it_listens_where_it_shall_though_an_address_is_missing(host: Host) -> None:
    listening = {line.split()[3] for line in host.check_output("ss -Hltn").splitlines()}
    assert {one for one in listening if one.endswith(":3307")} == {"127.0.0.1:3307", "10.99.0.1:3307"}


@pytest.mark.usefixtures("addresses")
def test_who_comes_from_elsewhere_speaks_tls(host: Host) -> None:
    status = says(host, f"-h 10.99.0.1 {TLS}", "SELECT USER(); SHOW STATUS LIKE 'Ssl_version'")
    assert status.split() == ["app@10.99.0.1", "Ssl_version", "TLSv1.3"]
    assert "Access denied" in says(host, "-h 10.99.0.1 --skip-ssl")
    assert says(host, "-h 127.0.0.1 --skip-ssl") == "1"
    # The same way there, from an address of a network on which nobody listens.
    host.check_output("ip route replace local 10.99.0.1 dev lo src 10.98.0.1 table local")
    assert says(host, "-h 10.99.0.1 --skip-ssl", "SELECT USER()") == "app@10.98.0.1"


def test_both_passwords_count(host: Host) -> None:
    assert says(host, "-h 127.0.0.1", password="canary-app-before-3c9d") == "1"
    assert "Access denied" in says(host, "-h 127.0.0.1", password="canary-wrong")


def test_rights_of_an_application_as_they_were_said(host: Host) -> None:
    root(host, "CREATE TABLE IF NOT EXISTS `shop-two`.goods (id INT)")
    assert says(host, "-h 127.0.0.1", "SELECT COUNT(*) FROM `shop-two`.goods").isdigit()
    assert "denied" in says(host, "-h 127.0.0.1", "INSERT INTO `shop-two`.goods VALUES (1)")
    assert "event_scheduler" in says(host, "-h 127.0.0.1", "SHOW PROCESSLIST"), "a thread of the server's own"
    root(host, "CREATE DATABASE IF NOT EXISTS shopxone")
    # An underscore in the name of a database stands for itself only.
    assert "Access denied" in says(host, "-h 127.0.0.1", "USE shopxone")
    assert says(host, "-h 127.0.0.1", "USE shop_one") == ""
    root(host, "DROP DATABASE shopxone")


def test_no_more_connections_than_were_said(host: Host) -> None:
    sleep = f"mariadb {login(host, 'app', PASSWORD)} -h 127.0.0.1 -e 'DO SLEEP(3)' >/dev/null 2>&1 &"
    host.check_output(f"{sleep} {sleep} sleep 1")
    assert "max_user_connections" in says(host, "-h 127.0.0.1")


def test_variables(host: Host) -> None:
    asked = dict(line.split("\t") for line in root(host, "SHOW GLOBAL VARIABLES").splitlines() if line.count("\t") == 1)
    wanted = {
        "innodb_buffer_pool_size": str(64 * 1024**2),
        "max_connections": "60",
        "long_query_time": "0.200000",
        "log_bin": "ON",
        "expire_logs_days": "3.000000",
        "sync_binlog": "1",
        "sort_buffer_size": str(1024**2),
        "event_scheduler": "ON",
        "tls_version": "TLSv1.2,TLSv1.3",
    }
    found = {name: asked[name] for name in wanted}
    assert found == wanted
    shop = "SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = 'shop_one'"
    assert root(host, shop) == "latin1_general_ci"


def test_slow_queries_are_logged_and_the_log_is_rotated(host: Host) -> None:
    root(host, "SELECT SLEEP(0.3)")
    assert "SELECT SLEEP(0.3)" in host.file("/var/log/mysql/mariadb-slow.log").content_string
    assert "/var/log/mysql/*.log" in host.file("/etc/logrotate.d/mariadb").content_string
    host.check_output("logrotate --force /etc/logrotate.d/mariadb")
    root(host, "SELECT SLEEP(0.3)")
    assert host.file("/var/log/mysql/mariadb-slow.log").content_string.count("SELECT SLEEP(0.3)") == 1


def test_a_backup_says_where_in_the_binary_log_it_was_taken(host: Host) -> None:
    options = "--single-transaction --routines --events --triggers --master-data=2 shop_one"
    dump = f"mariadb-dump {login(host, 'saver', 'canary-saver-94d7f20e6b')} -h 127.0.0.1"
    dumped = host.run(f"{dump} {options}")
    assert (dumped.rc, dumped.stderr) == (0, "")
    assert "MASTER_LOG_FILE='mariadb-bin." in dumped.stdout
    assert host.run(f"{dump} --single-transaction shop-two").rc != 0


def test_figures_of_the_budget(host: Host) -> None:
    figures = host.file("/var/lib/figures/mariadb_connection_budget.prom").content_string
    for line in (
        'mariadb_connection_budget_application_wanted{application="shop web on app1"} 48',
        "mariadb_connection_budget_wanted 48",
        "mariadb_connection_budget_reserved 4",
        "mariadb_connection_budget_max 60",
    ):
        assert f"\n{line}\n" in figures


def test_secrets_are_not_lying_about(host: Host) -> None:
    assert host.run("grep -rl canary /etc/mysql /var/log/mysql /var/lib/mysql /run/mariadb*").stdout == ""
