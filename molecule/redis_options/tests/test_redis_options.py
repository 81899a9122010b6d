"""Every option away from its default."""

from __future__ import annotations

from testinfra.host import Host

TLS = "--tls --cacert /srv/tls/chain.pem"


def server(host: Host) -> str:
    return "valkey" if host.system_info.release.startswith("13") else "redis"


def says(host: Host, port: int, user: str, password: str, command: str, options: str = "") -> str:
    login = (
        f"REDISCLI_AUTH={password} {server(host)}-cli -h 127.0.0.1 -p {port} {options} --user {user} --no-auth-warning"
    )
    done = host.run(f"{login} {command}")
    return str(done.stdout + done.stderr).strip()


def test_tls_and_only_tls(host: Host) -> None:
    assert says(host, 7001, "app", "canary-app-71d0e2c94fa8", "ping", TLS) == "PONG"
    assert says(host, 7001, "app", "canary-app-before-3c9d", "ping", TLS) == "PONG"
    assert says(host, 7001, "app", "canary-app-71d0e2c94fa8", "ping") != "PONG"
    assert "0.0.0.0:7001" in host.check_output("ss -Hltn")


def test_rights_of_an_application_as_they_were_said(host: Host) -> None:
    def app(command: str) -> str:
        return says(host, 7001, "app", "canary-app-71d0e2c94fa8", command, TLS)

    assert app("set s:1 x") == "OK"
    assert "NOPERM" in app("eval 'return 1' 0")
    assert "NOPERM" in app("publish other x")
    assert app("flushdb") == "OK"


def test_directives(host: Host) -> None:
    names = "maxmemory maxmemory-policy save appendonly databases maxclients slowlog-max-len"
    asked = host.check_output(f"{server(host)}-admin sessions config get {names}")
    lines = asked.split("\n")
    found = dict(zip(lines[::2], lines[1::2], strict=True))
    assert found == {
        "maxmemory": str(64 * 1024**2),
        "maxmemory-policy": "volatile-ttl",
        "save": "300 1",
        "appendonly": "no",
        "databases": "2",
        "maxclients": "200",
        "slowlog-max-len": "256",
    }


def test_a_replica_follows(host: Host) -> None:
    assert says(host, 7002, "worker", "canary-worker-5e8a1b60c3", "set job 7") == "OK"
    admin = f"{server(host)}-admin copy"
    host.check_output(f"timeout 20 sh -c 'until {admin} get job | grep -q 7; do sleep 0.1; done'")
    assert "master_link_status:up" in host.check_output(f"{admin} info replication")
    assert "READONLY" in says(host, 7003, "worker", "canary-worker-5e8a1b60c3", "set job 8")


def test_an_address_may_come_to_the_host_later_than_the_server(host: Host) -> None:
    assert "10.99.0.2" not in host.check_output("hostname -I")
    assert "10.99.0.2:7002" in host.check_output("ss -Hltn")


def test_an_instance_that_is_not_wanted(host: Host) -> None:
    assert not host.file(f"/etc/{server(host)}/{server(host)}-gone.conf").exists
    assert not host.service(f"{server(host)}-server@gone").is_running
