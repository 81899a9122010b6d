"""Loki's way onto the host and back: archives, versions, the unit, what is refused. Nothing here is said of Loki."""

from __future__ import annotations

import datetime
import hashlib
import re
import zipfile
from pathlib import Path
from typing import Any

import yaml
from plays import Played, all_hosts, play
from testinfra.host import Host

FOLDER = Path(__file__).parents[1]
PROGRAM = (FOLDER / "files/loki").read_text("utf-8")
BASE = "http://10.99.0.1:3101"
APT = ("/etc/apt/keyrings/grafana.asc", "/etc/apt/preferences.d/loki", "/etc/apt/sources.list.d/loki.sources")
DIRECTORY = "/opt/loki/3.0.1-" + hashlib.sha256(PROGRAM.encode()).hexdigest()[:12]
SETTINGS = yaml.safe_load((FOLDER / "vars.yml").read_text("utf-8"))


def applied(*arguments: str, **settings: Any) -> Played:
    role = {"ansible.builtin.include_role": {"name": "fushuma.production.loki"}, "vars": SETTINGS | settings}
    return play(role, arguments=("--diff", *arguments))


def variant(folder: Path, release: str, fault: str = "") -> Path:
    text = PROGRAM.replace('RELEASE = "first"', f'RELEASE = "{release}"').replace('FAULT = ""', f'FAULT = "{fault}"')
    path = folder / "loki-linux-amd64"
    path.write_text(text, "utf-8")
    path.chmod(0o755)
    return path


def archive(path: Path) -> dict[str, str]:
    return {"source": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def answer(host: Host, path: str) -> str:
    code = f"import urllib.request; print(urllib.request.urlopen('{BASE}{path}', timeout=5).read().decode())"
    return str(host.check_output("python3 -c %s", code)).strip()


def process(host: Host) -> str:
    return str(host.check_output("systemctl show --value --property=MainPID loki.service"))


def failures(played: Played) -> dict[str, str]:
    """What the last task of each host said, and that it failed."""
    last = {name: results[-1] for name, results in played.results.items()}
    assert all(one["failed"] for one in last.values()), played.output
    return {name: str(one["msg"]) for name, one in last.items()}


def test_the_program_runs_from_a_folder_of_its_own(host: Host) -> None:
    file = host.file(f"{DIRECTORY}/loki")
    assert (file.mode, file.user, file.content_string) == (0o755, "root", PROGRAM)
    assert answer(host, "/release") == "first"
    assert f"{DIRECTORY}/loki" in host.check_output("tr '\\0' ' ' </proc/%s/cmdline", process(host))
    assert host.service("loki").is_enabled


def test_it_has_no_rights(host: Host) -> None:
    assert host.check_output("stat -c %%U /proc/%s", process(host)) == "loki"
    folder = host.file("/var/lib/loki")
    assert (folder.user, folder.mode) == ("loki", 0o750)
    found = host.check_output("systemd-analyze security --no-pager loki.service | tail -n 1")
    assert float(re.search(r": ([0-9.]+) ", found)[1]) <= 4.0, found


def test_it_listens_on_its_private_address_only(host: Host) -> None:
    assert {line.split()[3] for line in host.check_output("ss -Hltn").splitlines() if ":3101" in line} == {
        "10.99.0.1:3101"
    }


def test_keys_are_in_one_file_for_root(host: Host) -> None:
    file = host.file("/etc/loki/environment")
    assert (file.mode, file.user) == (0o600, "root")
    assert "LOKI_S3_SECRET_KEY=canary-s3-keys-90d1ce77\n" in file.content_string
    assert host.run("grep -rl c[a]nary-s3 /etc/loki /etc/systemd /opt/loki").stdout == "/etc/loki/environment\n"
    # It reached the program, by no other way.
    assert "secret_access_key: 'canary-s3-keys-90d1ce77'" in answer(host, "/config")
    assert "canary" not in host.check_output("tr '\\0' ' ' </proc/%s/cmdline", process(host))


def test_what_is_not_wanted_is_not_touched() -> None:
    before = {name: process(host) for name, host in all_hosts().items()}
    played = applied(loki_enabled=False, loki_version="nonsense")
    for name, host in all_hosts().items():
        assert not [one for one in played.results[name] if one.get("changed") or one["failed"]]
        assert process(host) == before[name]


def test_another_version_takes_its_place_and_what_is_gone_comes_back(tmp_path: Path) -> None:
    packed = tmp_path / "loki.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        out.write(variant(tmp_path, "second"), "loki-linux-amd64")
    applied(loki_version="3.0.2", loki_archive=archive(packed))
    for host in all_hosts().values():
        assert answer(host, "/release") == "second"
        assert host.file(f"{DIRECTORY}/loki").exists, "the one of before is gone"
        host.check_output("rm -r %s", DIRECTORY)
    applied()
    for host in all_hosts().values():
        assert answer(host, "/release") == "first"


def test_a_version_that_never_becomes_ready_is_put_back(tmp_path: Path) -> None:
    played = applied(loki_version="3.0.3", loki_archive=archive(variant(tmp_path, "third", "never ready")))
    for name, said in failures(played).items():
        assert "/ready" in said
        assert "The former configuration is back and in force." in said
        host = all_hosts()[name]
        assert answer(host, "/release") == "first"
        assert DIRECTORY in host.file("/etc/systemd/system/loki.service.d/production.conf").content_string


def test_what_the_program_itself_refuses_never_reaches_the_running_one(tmp_path: Path) -> None:
    before = {name: process(host) for name, host in all_hosts().items()}
    played = applied(loki_version="3.0.4", loki_archive=archive(variant(tmp_path, "fourth", "refuses")))
    for name, said in failures(played).items():
        assert "Loki refuses its configuration" in said
        assert process(all_hosts()[name]) == before[name], "it was restarted"


def day(distance: int) -> str:
    return (datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=distance)).isoformat()


def test_periods_in_force_stay() -> None:
    before = {name: process(host) for name, host in all_hosts().items()}
    periods = [{"from": "2024-01-01"}, {"from": day(0), "storage": "s3"}]
    for name, said in failures(applied(loki_schema=periods)).items():
        assert "from 2020-01-01 (boltdb-shipper, filesystem, v12) of loki_schema is in force and would be gone" in said
        assert "would become from 2024-01-01 (tsdb, filesystem, v13)" in said
        assert "would be in force at once" in said
        assert process(all_hosts()[name]) == before[name], "it was restarted"


def test_a_period_to_come_is_appended_and_may_still_change() -> None:
    for periods in ([{"from": day(3), "storage": "s3"}], []):
        played = applied(loki_schema=SETTINGS["loki_schema"] + periods)
        assert played.code == 0, played.output
        for host in all_hosts().values():
            found = host.file("/etc/loki/config.yml").content_string
            assert re.findall(r"from: '(\S+)'", found) == [
                "2020-01-01",
                "2024-01-01",
                *(one["from"] for one in periods),
            ]


def test_rules_are_where_loki_looks_for_those_of_everybody(host: Host) -> None:
    found = yaml.safe_load(host.file("/etc/loki/rules/fake/production.yml").content_string)
    assert found["groups"][0]["rules"][0]["annotations"] == {
        "summary": "{{ $labels.app }} logs {{ $value }} errors in five minutes"
    }


def test_grafanas_repository_is_foreseen() -> None:
    played = applied("--check", from_repository=True)
    for name in all_hosts():
        last = played.results[name][-1]
        assert sorted(path for path in last["paths"] if path in APT) == sorted(APT)
        order = [" ".join(one.split()[:3]) for one in last["commands"]]
        assert order.index("apt-get -qq update") < next(
            place for place, one in enumerate(last["commands"]) if one.endswith("loki-production.py install")
        )


def test_a_repository_that_does_not_answer_does_not_stay() -> None:
    for name, said in failures(applied(from_repository=True)).items():
        host = all_hosts()[name]
        assert "apt-get -qq update" in said
        assert not [path for path in APT if host.file(path).exists]
        assert answer(host, "/release") == "first"


def test_it_runs_when_all_is_over(host: Host) -> None:
    assert host.check_output("systemctl is-active loki.service") == "active"
