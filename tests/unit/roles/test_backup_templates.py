# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the backup role writes and does, for settings as operators have them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import Settings
from ansible_collections.fushuma.production.plugins.plugin_utils import specs

from .render import Role

PASSWORDS = [f"canary-{number}-5d1c8e0b7f92" for number in range(4)]
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n-----END OPENSSH PRIVATE KEY-----\n"
REPOSITORIES: list[dict[str, Any]] = [
    {
        "name": "local",
        "kind": "local",
        "path": "/srv/backups/",
        "password": PASSWORDS[0],
        "former_password": "canary-before-77b1",
    },
    {
        "name": "offsite",
        "kind": "sftp",
        "host": "backups.fushuma.com",
        "port": 2222,
        "user": "web1",
        "path": "/restic",
        "password": PASSWORDS[1],
        "private_key": KEY,
        "host_keys": ["ssh-ed25519 AAAAC3Nz"],
    },
    {
        "name": "bucket",
        "kind": "s3",
        "url": "https://s3.fushuma.com/",
        "path": "/backups/web1",
        "region": "eu-1",
        "access_key": "AKIA1",
        "secret_key": "canary-s3-77d0",
        "password": PASSWORDS[2],
        "append_only": True,
    },
    {
        "name": "rest",
        "kind": "rest",
        "url": "https://rest.fushuma.com:8000",
        "path": "web1",
        "user": "web1",
        "user_password": "canary-rest-8a1e",
        "password": PASSWORDS[3],
        "ca": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
        "purposes": ["backup"],
        "retention": {"within_daily": "30d"},
        "offsite": False,
    },
]
SOURCES: list[dict[str, Any]] = [
    {"kind": "path", "path": "/etc/nginx"},
    {"kind": "path", "path": "/srv/files/"},
    {"kind": "path", "path": "/srv/files"},
    {"kind": "volume", "volume": "shop-uploads"},
    {"kind": "volume", "volume": "shop-uploads"},
    {"kind": "mariadb", "databases": ["shop"], "user": "saver"},
    {
        "kind": "redis",
        "instance": "jobs",
        "server": "valkey",
        "folder": "/var/lib/valkey/jobs",
        "rdb": "/var/lib/valkey/jobs/dump.rdb",
        "unit": "valkey-server@jobs.service",
        "cli": ["/usr/local/sbin/valkey-admin", "jobs"],
    },
]
SYSTEMD = Path("/etc/systemd/system")


def role(**settings: Any) -> Role:
    return Role("backup", {"backup_repositories": REPOSITORIES, "backup_sources": SOURCES, **settings})


@pytest.fixture(scope="module")
def whole() -> Role:
    return role()


def test_the_program_reads_its_configuration(whole: Role, tmp_path: Path) -> None:
    """What is written is what the program on the host takes."""
    for path, text in whole.files.items():
        if path.startswith("/etc/production-backup/"):
            (tmp_path / Path(path).name).write_text(text)
    found = Settings.load(tmp_path)
    assert found.host == "web1"
    assert [one.name for one in found.repositories] == ["local", "offsite", "bucket", "rest"]
    assert [one.location for one in found.repositories] == [
        "/srv/backups",
        "sftp://web1@backups.fushuma.com:2222//restic",
        "s3:https://s3.fushuma.com/backups/web1",
        "rest:https://rest.fushuma.com:8000/web1/",
    ]
    assert [one.offsite for one in found.repositories] == [False, True, True, False]
    assert [one.purposes for one in found.repositories] == [
        ("backup", "prune", "check", "drill"),
        ("backup", "prune", "check", "drill"),
        ("backup", "check", "drill"),
        ("backup",),
    ]
    assert found.repositories[0].retention["daily"] == 7
    assert found.repositories[3].retention["daily"] == 0
    assert found.repositories[3].ca == "/etc/production-backup/rest.ca.pem"
    assert (found.rpo_seconds, found.rto_seconds) == (26 * 3600, 4 * 3600)
    assert [(one.kind, one.path or one.volume or one.instance or one.databases) for one in found.sources] == [
        ("path", "/srv/files"),
        ("volume", "shop-uploads"),
        ("mariadb", ("shop",)),
        ("redis", "jobs"),
        ("path", "/etc"),
    ]
    assert found.sources[3].cli == ("/usr/local/sbin/valkey-admin", "jobs")
    assert found.exclude == ("/etc/production-backup",)
    assert [one.append_only for one in found.repositories] == [False, False, True, False]
    assert found.textfile == "/var/lib/prometheus/node-exporter"


def test_every_setting_of_the_program_is_written(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "backup_postgresql": ["stats"],
        "backup_exclude": ["*.tmp"],
        "backup_paths": ["/srv", "/srv/files"],
        "backup_hooks": {"before": [["/bin/true", "1"]], "after": [["/bin/false"]]},
        "backup_limits": {"seconds": 600, "attempts": 5, "upload_kib": 100, "download_kib": 200},
        "backup_rpo": "90m",
        "backup_rto": "2d",
        "backup_check_parts": 4,
        "backup_drill": {"queries": [{"database": "shop", "query": "SELECT 1", "at_least": 7}]},
        "backup_signals": {
            "textfile_folder": "",
            "ping_url": "https://ping.fushuma.com/canary-1",
            "sentry_url": "https://sentry.fushuma.com/canary-2",
            "webhook_url": "https://hooks.fushuma.com/canary-3",
            "mail_to": "ops@fushuma.com",
        },
    }
    for path, text in role(**given).files.items():
        if path.startswith("/etc/production-backup/"):
            (tmp_path / Path(path).name).write_text(text)
    found = Settings.load(tmp_path)
    assert (found.before, found.after) == ((("/bin/true", "1"),), (("/bin/false",),))
    assert vars(found.limits) == given["backup_limits"]
    assert (found.rpo_seconds, found.rto_seconds, found.textfile, found.mail_to) == (
        5400,
        172800,
        "",
        "ops@fushuma.com",
    )
    assert found.queries[0].at_least == 7
    assert {one.check_parts for one in found.repositories} == {4}
    assert found.exclude[0] == "*.tmp"
    assert [one.path for one in found.sources if one.kind == "path"] == ["/etc/nginx", "/srv"]
    assert [one.databases for one in found.sources if one.kind == "postgresql"] == [("stats",)]
    assert vars(found.signals) == {
        "ping": "https://ping.fushuma.com/canary-1",
        "sentry": "https://sentry.fushuma.com/canary-2",
        "webhook": "https://hooks.fushuma.com/canary-3",
    }


def test_secrets_are_in_files_that_only_root_reads(whole: Role) -> None:
    modes = {
        spec["dest"].format_map(one): spec.get("mode", "0644")
        for spec in whole.value(whole.variables["_backup_files"])
        for one in spec.get("each", [{}])
        if isinstance(one, dict)
    }
    holding = {path for path, text in whole.files.items() if "canary" in text}
    assert holding == {
        *(f"/etc/production-backup/{name}.password" for name in ("local", "offsite", "bucket", "rest")),
        *(f"/etc/production-backup/{name}.environment.json" for name in ("bucket", "rest")),
        "/etc/production-backup/local.former-password",
        "/etc/production-backup/offsite.key",
    }
    assert {modes[path] for path in holding} == {"0600"}
    assert modes["/etc/production-backup/signals.json"] == "0600"
    ((_judge, _judged), (_module, given)) = whole.tasks
    assert {"path": "/etc/production-backup", "mode": "0700", "prune": True} in given["directories"]


def test_what_opens_a_repository(whole: Role) -> None:
    files = whole.files
    folder = "/etc/production-backup"
    assert files[f"{folder}/local.password"] == PASSWORDS[0] + "\n"
    assert json.loads(files[f"{folder}/bucket.environment.json"]) == {
        "AWS_ACCESS_KEY_ID": "AKIA1",
        "AWS_SECRET_ACCESS_KEY": "canary-s3-77d0",
        "AWS_DEFAULT_REGION": "eu-1",
    }
    assert json.loads(files[f"{folder}/rest.environment.json"]) == {
        "RESTIC_REST_USERNAME": "web1",
        "RESTIC_REST_PASSWORD": "canary-rest-8a1e",
    }
    assert files[f"{folder}/offsite.known_hosts"] == "[backups.fushuma.com]:2222 ssh-ed25519 AAAAC3Nz\n"
    assert files[f"{folder}/offsite.key"] == KEY
    (option,) = json.loads(files[f"{folder}/config.json"])["repositories"][1]["options"]
    assert option.startswith("sftp.command=ssh -F none -o BatchMode=yes ")
    for part in ("StrictHostKeyChecking=yes", f"-i {folder}/offsite.key -p 2222 -l web1 backups.fushuma.com -s sftp"):
        assert part in option


@pytest.mark.parametrize(
    ("host", "port", "location", "known"),
    [("10.0.0.7", 22, "sftp://b@10.0.0.7:22/r", "10.0.0.7 k"), ("fd00::7", 22, "sftp://b@[fd00::7]:22/r", "fd00::7 k")],
)
def test_addresses_of_hosts(host: str, port: int, location: str, known: str) -> None:
    one = {**REPOSITORIES[1], "host": host, "port": port, "user": "b", "path": "r", "host_keys": ["k"]}
    files = role(backup_repositories=[one]).files
    assert json.loads(files["/etc/production-backup/config.json"])["repositories"][0]["location"] == location
    assert files["/etc/production-backup/offsite.known_hosts"] == known + "\n"


# --- when ------------------------------------------------------------------------------------------------------------


def crontab(one: Role) -> list[str]:
    return [line for line in one.files["/etc/cron.d/production-backup"].splitlines() if " root " in line]


def test_cron_starts_units_after_a_random_delay(whole: Role) -> None:
    assert crontab(whole) == [
        "17 2 * * * root systemctl start production-backup-delayed@run.timer",
        "47 3 * * 0 root systemctl start production-backup-delayed@prune.timer",
        "47 4 * * 3 root systemctl start production-backup-delayed@check.timer",
        "47 5 1 * * root systemctl start production-backup-delayed@drill.timer",
    ]
    assert "RandomizedDelaySec=15m\n" in whole.files[f"{SYSTEMD}/production-backup-delayed@.timer"]
    (_judged, (_name, given)) = whole.tasks
    assert given["units"] == ["cron.service"]
    assert set(given["replaces"]) == {f"production-backup-{verb}.timer" for verb in ("run", "prune", "check", "drill")}
    assert given["packages"] == ["restic", "ca-certificates", "cron", "openssh-client"]


def test_cron_starts_units_at_once_where_no_delay_is_wanted() -> None:
    times = {"random_delay": "0m", "run": "0 * * * *", "prune": "", "drill": ""}
    assert crontab(role(backup_schedule=times, backup_rpo="2h")) == [
        "0 * * * * root systemctl start --no-block production-backup@run.service",
        "47 4 * * 3 root systemctl start --no-block production-backup@check.service",
    ]


def test_timers_take_the_place_of_cron() -> None:
    one = role(backup_schedule={"by": "timer", "drill": "", "run": "0 1 1,15 * 1", "random_delay": "5m"})
    (_judged, (_name, given)) = one.tasks
    assert given["units"] == [f"production-backup-{verb}.timer" for verb in ("run", "prune", "check")]
    assert given["replaces"] == ["production-backup-drill.timer"]
    assert "cron" not in given["packages"]
    assert "/etc/cron.d/production-backup" not in one.files
    run = one.files[f"{SYSTEMD}/production-backup-run.timer"]
    for line in ("OnCalendar=Mon *-*-* 01:00:00", "OnCalendar=*-*-01,15 01:00:00", "RandomizedDelaySec=5m"):
        assert f"{line}\n" in run
    assert "OnCalendar=2000-01-01 00:00:00\n" in one.files[f"{SYSTEMD}/production-backup-drill.timer"]


def test_what_no_repository_is_for_is_not_started() -> None:
    lone = [{**REPOSITORIES[0], "purposes": ["backup"]}]
    assert len(crontab(role(backup_repositories=lone))) == 1


def test_who_hosts_the_backups_of_others_only_prunes() -> None:
    lone = [{**REPOSITORIES[2], "purposes": ["prune"], "retention": {"within_daily": "30d"}}]
    config = json.loads(role(backup_repositories=lone).files["/etc/production-backup/config.json"])
    assert not config["repositories"][0]["append_only"], "this host may take away"
    assert crontab(role(backup_repositories=lone)) == [
        "47 3 * * 0 root systemctl start production-backup-delayed@prune.timer"
    ]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="this machine has no systemd-analyze")
@pytest.mark.parametrize("by", ["cron", "timer"])
def test_systemd_takes_the_units(by: str, tmp_path: Path) -> None:
    one = role(backup_schedule={"by": by})
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = []
    for path, text in one.files.items():
        if path.startswith(str(SYSTEMD)):
            units.append(Path(path).name.replace("@.", "@run."))
            (tmp_path / Path(path).name).write_text(text.replace("/usr/local/sbin/production-backup", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *(str(tmp_path / name) for name in units)],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
    )
    said = [line for line in done.stderr.splitlines() if "production-backup" in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_the_program_is_started_as_it_is_meant_to(whole: Role, tmp_path: Path) -> None:
    """The launcher finds its modules, and no others."""
    library = tmp_path / "backup"
    library.mkdir()
    (library / "cli.py").write_text("def main(argv):\n    print(argv)\n    return 7\n")
    text = whole.files["/usr/local/sbin/production-backup"].replace("/usr/local/lib/production-backup", str(tmp_path))
    done = subprocess.run(
        ["sh", "-c", text, "production-backup", "run", "--json"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "['run', '--json']\n", "")
    assert not (library / "__pycache__").exists()


def test_the_program_is_on_the_host_with_all_its_modules(whole: Role) -> None:
    there = {path.name for path in (specs.ROLES.parent / "plugins/module_utils/backup").glob("*.py")}
    brought = {Path(path).name for path in whole.files if path.startswith("/usr/local/lib/production-backup/backup/")}
    assert brought == there >= {"cli.py", "settings.py"}


# --- what else -------------------------------------------------------------------------------------------------------


def test_without_a_repository_nothing_comes() -> None:
    none = role(backup_repositories=[])
    assert [name for name, _given in none.tasks] == ["judge"]
    assert none.exports == {"health": [], "logs": [], "metrics": []}


def test_copies_on_the_host_alone_are_said() -> None:
    lone = role(backup_repositories=REPOSITORIES[:1])
    assert [name for name, _given in lone.tasks] == ["judge", "debug", "service_config"]
    assert "web1" in lone.tasks[1][1]["msg"]


def test_exports(whole: Role) -> None:
    assert whole.exports == {
        "health": [{"name": "backup", "units": ["cron.service"]}],
        "logs": [
            {"unit": f"production-backup@{verb}.service", "job": "backup"}
            for verb in ("run", "prune", "check", "drill")
        ],
        "metrics": [
            {"job": "backup", "textfile": "/var/lib/prometheus/node-exporter/production_backup.prom"},
        ],
    }
    quiet = role(backup_signals={"textfile_folder": ""}, backup_schedule={"by": "timer", "drill": "", "prune": ""})
    assert quiet.exports["metrics"] == []
    assert quiet.exports["health"] == [
        {"name": "backup", "units": ["production-backup-run.timer", "production-backup-check.timer"]}
    ]
