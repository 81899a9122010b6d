# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the backup role that cannot work, each with the sentence that an operator reads."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.filter.backup import FilterModule
from ansible_collections.fushuma.production.plugins.plugin_utils import backup_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.backup import problems
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519 as ed25519_keys

from .certificates import made
from .keys import ed25519

OPTIONS = specs.role_options("backup")
PRIVATE = ed25519_keys.Ed25519PrivateKey.generate()
PEM = serialization.Encoding.PEM


def private_key(form: serialization.PrivateFormat, passphrase: bytes = b"") -> str:
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return PRIVATE.private_bytes(PEM, form, locked).decode()


KEY = private_key(serialization.PrivateFormat.OpenSSH)
CA = made(["ca"]).chain

LOCAL = {"name": "local", "kind": "local", "path": "/srv/backups", "password": "canary-local-5d1c8e0b7f92"}
SFTP = {
    "name": "offsite",
    "kind": "sftp",
    "host": "backups.fushuma.com",
    "user": "web1",
    "path": "/restic",
    "password": "canary-sftp-5d1c8e0b7f92",
    "private_key": KEY,
    "host_keys": [ed25519()],
}
S3 = {
    "name": "bucket",
    "kind": "s3",
    "url": "https://s3.fushuma.com",
    "path": "backups/web1",
    "access_key": "AKIA1",
    "secret_key": "canary-s3-secret-77d0c1",
    "password": "canary-s3-5d1c8e0b7f92",
}
REST = {"name": "rest", "kind": "rest", "url": "https://rest.fushuma.com:8000", "password": "canary-rest-5d1c8e0b7f92"}
ALL = [LOCAL, SFTP, S3, REST]


def said(*repositories: dict[str, Any], **settings: Any) -> list[str]:
    given = {"backup_repositories": list(repositories), **settings}
    assert not specs.problems(OPTIONS, given), "the shape is wrong already"
    return sentences(problems(specs.filled(OPTIONS, {**defaults(), **given})))


def defaults() -> dict[str, Any]:
    return {name: option["default"] for name, option in OPTIONS.items()}


MARIADB = {"kind": "mariadb", "databases": ["shop"], "user": "saver"}
REDIS = {
    "kind": "redis",
    "instance": "jobs",
    "folder": "/var/lib/redis/jobs",
    "rdb": "/var/lib/redis/jobs/dump.rdb",
    "unit": "redis-server@jobs.service",
    "cli": ["/usr/local/sbin/redis-admin", "jobs"],
}
HOURLY = {"run": "17 * * * *"}
TIMES = {"within_daily": "30d", "within_monthly": "1y"}


@pytest.mark.parametrize(
    ("repositories", "settings"),
    [
        ([], {}),
        ([], {"backup_paths": [], "backup_schedule": {"run": ""}}),
        (ALL, {}),
        ([LOCAL], {"backup_sources": [MARIADB, REDIS, {"kind": "volume", "volume": "shop-uploads"}]}),
        ([{**SFTP, "host": "fd00::7", "path": "restic", "port": 2222}], {}),
        ([{**SFTP, "private_key": private_key(serialization.PrivateFormat.PKCS8)}], {}),
        ([{**REST, "user": "web1", "user_password": "canary-8a1e77b2c0d4", "ca": CA, "path": "web1"}], {}),
        ([{**S3, "url": "http://127.0.0.1:9000", "region": "eu"}], {}),
        ([{**REST, "url": "http://localhost:8000"}, {**S3, "url": "http://[::1]:9000"}], {}),
        ([{**REST, "append_only": True}], {}),
        ([{**REST, "append_only": True, "retention": TIMES}], {}),
        ([{**REST, "append_only": True, "purposes": ["prune"], "retention": TIMES}], {"backup_paths": []}),
        (
            [{**REST, "append_only": True, "purposes": ["prune"]}],
            {"backup_retention": {**TIMES, **dict.fromkeys(("daily", "weekly", "monthly"), 0)}},
        ),
        ([LOCAL], {"backup_schedule": HOURLY, "backup_rpo": "90m", "backup_retention": {"hourly": 48}}),
        ([LOCAL], {"backup_schedule": HOURLY, "backup_rpo": "90m", "backup_retention": {"last": 1000}}),
        ([LOCAL], {"backup_schedule": HOURLY, "backup_rpo": "90m", "backup_retention": {"within": "7d"}}),
        ([LOCAL], {"backup_schedule": {"drill": ""}, "backup_retention": {"daily": 3, "weekly": 0, "monthly": 0}}),
        ([LOCAL], {"backup_schedule": {"random_delay": "0m", "prune": "", "check": "@weekly"}, "backup_rpo": "24h"}),
        ([LOCAL], {"backup_paths": [], "backup_postgresql": ["stats"]}),
        ([LOCAL], {"backup_paths": ["/var/lib"], "backup_exclude": ["*.tmp", "/var/lib/cache"]}),
        ([LOCAL], {"backup_paths": ["/var"], "backup_sources": [MARIADB], "backup_exclude": ["/var/lib/mysql"]}),
        ([LOCAL], {"backup_hooks": {"before": [["/bin/true", "x"]], "after": [["/bin/true"]]}}),
        (
            [LOCAL],
            {
                "backup_sources": [MARIADB],
                "backup_drill": {
                    "queries": [
                        {"database": "shop", "query": " select 1;"},
                        {"database": "shop", "query": "WITH a AS (SELECT 1) SELECT * FROM a"},
                    ]
                },
            },
        ),
        (
            [LOCAL],
            {
                "backup_sources": [{"kind": "mariadb"}],
                "backup_drill": {"queries": [{"database": "any", "query": "SELECT 1"}]},
            },
        ),
        (
            [LOCAL],
            {
                "backup_signals": {
                    "textfile_folder": "",
                    "ping_url": "https://hc-ping.com/7c1d0b",
                    "webhook_url": "https://hooks.slack.com/services/T0/B0?x=y",
                    "mail_to": "ops@fushuma.com",
                }
            },
        ),
    ],
)
def test_settings_that_work(repositories: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    assert said(*repositories, **settings) == []


def first(one: dict[str, Any], **settings: Any) -> list[str]:
    return said({**one, **settings})


@pytest.mark.parametrize(
    ("one", "setting", "value", "why"),
    [
        (LOCAL, "name", "Off site", "files and commands are called by it"),
        (LOCAL, "password", "", "everybody could read what is in the repository"),
        (LOCAL, "former_password", LOCAL["password"], "it is the present one"),
        (LOCAL, "path", "", "a repository of the kind local cannot be reached without it"),
        (LOCAL, "path", "srv", "it is no folder of this host"),
        (LOCAL, "path", "//", "it is no folder of this host"),
        (LOCAL, "path", "/srv/../opt", "it is no plain path"),
        (LOCAL, "path", "/srv/b c", "it is no plain path"),
        (LOCAL, "path", "/var/lib/production-backup/r", "the role has that folder for itself"),
        (LOCAL, "path", "/etc/production-backup", "the role has that folder for itself"),
        (LOCAL, "url", "https://s3.fushuma.com", "a repository of the kind local does not read it"),
        (LOCAL, "port", 23, "a repository of the kind local does not read it"),
        (LOCAL, "append_only", True, "who is root on this host can remove what is in a folder of it"),
        (LOCAL, "purposes", [], "nothing would be done with it"),
        (LOCAL, "purposes", ["backup", "backup"], "one of them stands there twice"),
        (SFTP, "host_keys", [], "a repository of the kind sftp cannot be reached without it"),
        (SFTP, "private_key", "", "a repository of the kind sftp cannot be reached without it"),
        (SFTP, "private_key", "canary-nokey", "ssh cannot use it while nobody is there to type a passphrase"),
        (
            SFTP,
            "private_key",
            private_key(serialization.PrivateFormat.PKCS8, b"canary"),
            "ssh cannot use it while nobody is there to type a passphrase",
        ),
        (SFTP, "host", "bad host", "it is no name or address of a host"),
        (SFTP, "host", "-oProxyCommand=x", "it is no name or address of a host"),
        (SFTP, "user", "a b", "it is no name of a user"),
        (SFTP, "port", 0, "ports go from 1 to 65535"),
        (S3, "access_key", "", "a repository of the kind s3 cannot be reached without it"),
        (S3, "user", "web1", "a repository of the kind s3 does not read it"),
        (S3, "url", "s3.fushuma.com", "it is no address of a server that speaks HTTP"),
        (S3, "url", "https://", "it is no address of a server that speaks HTTP"),
        (S3, "url", "https://s3 .fushuma.com", "it is no address of a server that speaks HTTP"),
        (S3, "url", "https://[::1", "it is no address"),
        (S3, "url", "https://s3.fushuma.com:x", "it is no address"),
        (S3, "url", "https://s3.fushuma.com/?x=1", "a place has no question in it"),
        (S3, "url", "http://s3.fushuma.com", "everybody on the way could read what it is told"),
        (S3, "url", "http://10.0.0.7:9000", "everybody on the way could read what it is told"),
        (S3, "ca", "nothing", "it is no certificate in PEM form"),
        (S3, "password", S3["secret_key"], "it is secret_key too"),
        (REST, "user", "web1", "the server lets no user in without one"),
        (REST, "user_password", "canary-8a1e77b2c0d4", "user_password is the password of nobody"),
        (REST, "secret_key", "canary-8a1e77b2c0d4", "a repository of the kind rest does not read it"),
    ],
)
def test_a_repository_that_cannot_work(one: dict[str, Any], setting: str, value: Any, why: str) -> None:
    found = first(one, **{setting: value})
    assert len(found) == 1, found
    assert found[0].startswith("backup_repositories[0]."), found
    assert why in found[0]
    assert ". Write " in found[0]
    assert "canary" not in found[0]


def test_secrets_in_addresses_are_not_repeated() -> None:
    (sentence,) = first(S3, url="https://canary:canary@s3.fushuma.com")
    assert "a name or password in it would be seen" in sentence
    assert "canary" not in sentence


@pytest.mark.parametrize("line", ["backups.fushuma.com " + ed25519(), "ssh-ed25519 AAAA", "x", "a\nb"])
def test_what_is_no_key_of_a_host(line: str) -> None:
    (sentence,) = first(SFTP, host_keys=[ed25519(), line])
    assert sentence.startswith("backup_repositories[0].host_keys[1] is ")


def test_authorities_without_tls() -> None:
    (sentence,) = first(REST, url="http://127.0.0.1:8000", ca=CA)
    assert "url is without TLS" in sentence


def test_two_entries_for_one_place() -> None:
    (sentence,) = said(LOCAL, {**LOCAL, "name": "other", "path": "/srv//backups/", "password": "canary-0f9d8c7b6a51"})
    assert sentence.startswith('backup_repositories[1].path is "/srv//backups/": backup_repositories[0] is at the same')
    (sentence,) = said(REST, {**REST, "name": "other", "url": REST["url"] + "/", "password": "canary-0f9d8c7b6a51"})
    assert "one of two copies is none" in sentence


def test_one_name_for_two() -> None:
    (sentence,) = said(LOCAL, {**REST, "name": "local"})
    assert sentence.startswith('backup_repositories[1].name is "local": ')


def test_one_password_for_two() -> None:
    (sentence,) = said(LOCAL, {**REST, "password": LOCAL["password"]})
    assert sentence == (
        "backup_repositories[1].password is a secret of 25 characters: backup_repositories[0] has the same, and who "
        "learns one of them could read both. Write a password of its own."
    )


def test_a_server_that_takes_nothing_away_is_not_pruned_by_who_adds() -> None:
    (sentence,) = first(REST, append_only=True, purposes=["backup", "prune"], retention=TIMES)
    assert "one that does is not append-only" in sentence


@pytest.mark.parametrize(
    "settings",
    [
        {"retention": {"daily": 7, "monthly": 3}},
        {"retention": {"last": 90, "within": "1y"}},
        {"purposes": ["prune"]},
    ],
)
def test_counted_retention_of_an_append_only_repository(settings: dict[str, Any]) -> None:
    (sentence,) = first(REST, append_only=True, **settings)
    where = "backup_repositories[0].retention" if "retention" in settings else "backup_retention"
    assert sentence.startswith(where)
    assert "who takes a host over could add snapshots until none of yours is among the newest" in sentence


# --- what is backed up ------------------------------------------------------------------------------------------------


def test_nothing_to_back_up() -> None:
    (sentence,) = said(LOCAL, backup_paths=[])
    assert sentence.startswith("backup_paths is []: there is nothing to back up.")


@pytest.mark.parametrize(
    ("source", "setting", "why"),
    [
        ({"kind": "path"}, "path", "nobody can back up a source of the kind path without it"),
        ({"kind": "volume"}, "volume", "nobody can back up a source of the kind volume without it"),
        ({"kind": "volume", "volume": "../x"}, "volume", "it is no name of a volume"),
        ({**REDIS, "cli": []}, "cli", "nobody can back up a source of the kind redis without it"),
        ({**REDIS, "instance": ""}, "instance", "nobody can back up a source of the kind redis without it"),
        ({**REDIS, "rdb": "dump.rdb"}, "rdb", "it is no whole path"),
        ({**REDIS, "folder": "jobs"}, "folder", "it is no whole path"),
        ({"kind": "mariadb", "databases": ["shop", "a b"]}, "databases[1]", "it is no plain name"),
        ({"kind": "path", "path": "srv"}, "path", "it is no whole path"),
        ({"kind": "path", "path": "/srv/backups/web1"}, "path", "the backups themselves lie there"),
    ],
)
def test_a_source_that_nobody_can_back_up(source: dict[str, Any], setting: str, why: str) -> None:
    (sentence,) = said(LOCAL, backup_sources=[source])
    assert sentence.startswith(f"backup_sources[0].{setting} is ")
    assert why in sentence


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("srv", "it is no whole path"),
        ("/", "there is much in it that nobody can back up"),
        ("/proc", "the kernel and running programs make what is there"),
        ("/run/app", "the kernel and running programs make what is there"),
        ("/var/lib/mysql", "its files change while they are read"),
        ("/var/lib/docker/volumes/x", "its files change while they are read"),
        ("/srv/backups", "the backups themselves lie there"),
        ("/var/cache/production-backup", "the role has that folder for itself"),
        ("/var/lib", "/var/lib/redis is in it, whose files change while they are read"),
    ],
)
def test_a_path_that_cannot_be_backed_up(path: str, why: str) -> None:
    (sentence,) = said(LOCAL, backup_paths=["/etc", path], backup_sources=[REDIS])
    assert sentence.startswith(f'backup_paths[1] is "{path}": ')
    assert why in sentence


def test_what_postgresql_has_is_dumped() -> None:
    (sentence,) = said(LOCAL, backup_paths=["/var/lib"], backup_postgresql=["stats"])
    assert "it with /var/lib/postgresql in backup_exclude" in sentence
    (sentence,) = said(LOCAL, backup_postgresql=["stats", "x y"])
    assert sentence.startswith('backup_postgresql[1] is "x y": it is no plain name')


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "it is no pattern"),
        ("a\nb", "it is no pattern"),
        ("!/etc/x", "it takes back what another pattern leaves out"),
        ("/etc", "nothing of /etc, which is to be backed up, would be left"),
        ("/etc/*", "nothing of /etc, which is to be backed up, would be left"),
        ("/srv", "nothing of /srv/files, which is to be backed up, would be left"),
        ("*", "nothing of /etc"),
        ("/", "nothing of /etc"),
    ],
)
def test_what_leaves_nothing(pattern: str, why: str) -> None:
    (sentence,) = said(LOCAL, backup_paths=["/etc", "/srv/files"], backup_exclude=["*.tmp", pattern])
    assert sentence.startswith("backup_exclude[1] is ")
    assert why in sentence


# --- when and how much is kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "setting", "why"),
    [
        ({"run": ""}, "run", "backup_repositories wait for backups, and nothing would make one"),
        ({"run": "17 2 * *"}, "run", "it has 4 fields in place of five"),
        ({"prune": "x"}, "prune", "it has 1 fields in place of five"),
        ({"drill": "0 0 31 2 *"}, "drill", "there is no such day"),
        (
            {"run": "17 2 * * 1-5"},
            "run",
            "backups are up to 3d and 15m of random_delay apart, and backup_rpo wants none",
        ),
        ({"random_delay": "3h"}, "run", "backups are up to 24h and 3h of random_delay apart"),
        ({"run": "0 */27 * * *", "random_delay": "0m"}, "", ""),
        ({"run": "0 0 */2 * *", "random_delay": "0s"}, "run", "backups are up to 2d apart"),
        ({"random_delay": "soon"}, "random_delay", "it is no length of time"),
        ({"run": "*/10 * * * *"}, "random_delay", "the next backup is due 10m later already"),
    ],
)
def test_times(times: dict[str, str], setting: str, why: str) -> None:
    found = said(LOCAL, backup_schedule=times)
    assert len(found) == bool(setting), found
    if setting:
        assert found[0].startswith(f"backup_schedule.{setting} is ")
        assert why in found[0]


@pytest.mark.parametrize("name", ["backup_rpo", "backup_rto"])
@pytest.mark.parametrize("length", ["1 day", "0h", "26", "-1h", "1h30m"])
def test_what_is_no_length_of_time(name: str, length: str) -> None:
    (sentence,) = said(LOCAL, **{name: length})
    assert sentence.startswith(f'{name} is "{length}": it is no length of time.')


NONE = {"daily": 0, "weekly": 0, "monthly": 0}


@pytest.mark.parametrize(
    ("kept", "setting", "why"),
    [
        ({"daily": -1}, ".daily", "less than none cannot be kept"),
        ({"within": "7"}, ".within", "it is no length of time"),
        ({"within_daily": "0d"}, ".within_daily", "it is no length of time"),
        (NONE, "", "nothing is to be kept, so all snapshots would go"),
        ({**NONE, "weekly": 9}, "", "what it keeps is 7d apart or more, and backup_rpo wants no more than 26h"),
        ({**NONE, "daily": 7}, "", "it reaches back 7d, and drills are up to 31d apart"),
        ({**NONE, "last": 30}, "", "it reaches back 30d, and drills are up to 31d apart"),
        ({**NONE, "within": "20d"}, "", "it reaches back 20d, and drills are up to 31d apart"),
    ],
)
def test_what_is_kept(kept: dict[str, Any], setting: str, why: str) -> None:
    (sentence,) = said(LOCAL, backup_retention=kept)
    assert sentence.startswith(f"backup_retention{setting} is ")
    assert why in sentence
    own = {name: value for name, value in kept.items() if value} or {"daily": 0}
    (sentence,) = said({**LOCAL, "retention": own})
    assert sentence.startswith(f"backup_repositories[0].retention{setting} is ")
    assert why in sentence


def test_retention_of_backups_that_are_often_made() -> None:
    (sentence,) = said(LOCAL, backup_schedule=HOURLY, backup_rpo="2h")
    assert "what it keeps is 24h apart or more, and backup_rpo wants no more than 2h" in sentence
    assert sentence.endswith("Write hourly: 48 besides.")


def test_retention_that_nobody_needs_is_not_judged() -> None:
    assert said({**LOCAL, "purposes": ["backup"]}, backup_retention=NONE) == []
    assert said(backup_retention=NONE) == []
    assert len(said(LOCAL, backup_schedule={"drill": "x"}, backup_retention={**NONE, "daily": 2})) == 1


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "setting", "why"),
    [
        ({"backup_hooks": {"before": [[]]}}, "backup_hooks.before[0]", "it is no argv"),
        ({"backup_hooks": {"after": [["/bin/true", 1]]}}, "backup_hooks.after[0]", "it is no argv"),
        ({"backup_hooks": {"after": [["true"]]}}, "backup_hooks.after[0]", "its program is no whole path"),
        ({"backup_check_parts": 0}, "backup_check_parts", "data is checked in one part"),
        ({"backup_limits": {"seconds": 5}}, "backup_limits.seconds", "a call of restic needs a minute"),
        ({"backup_limits": {"attempts": 0}}, "backup_limits.attempts", "one attempt is needed at least"),
        ({"backup_limits": {"upload_kib": -1}}, "backup_limits.upload_kib", "less than none is no limit"),
        (
            {"backup_drill": {"queries": [{"database": "shop", "query": "SELECT 1"}]}},
            "backup_drill.queries[0].database",
            "no database of that name is backed up",
        ),
        (
            {
                "backup_sources": [MARIADB],
                "backup_drill": {"queries": [{"database": "shop", "query": "SELECT 1; DROP TABLE x"}]},
            },
            "backup_drill.queries[0].query",
            "it is not one query whose answer could be compared",
        ),
        (
            {"backup_sources": [MARIADB], "backup_drill": {"queries": [{"database": "wine", "query": "SELECT 1"}]}},
            "backup_drill.queries[0].database",
            "Write one of shop.",
        ),
        (
            {"backup_sources": [MARIADB], "backup_drill": {"queries": [{"database": "shop", "query": "DELETE x"}]}},
            "backup_drill.queries[0].query",
            "it is not one query",
        ),
        ({"backup_signals": {"textfile_folder": "x"}}, "backup_signals.textfile_folder", "it is no whole path"),
        ({"backup_signals": {"mail_to": "ops"}}, "backup_signals.mail_to", "it is no address of mail"),
        ({"backup_signals": {"ping_url": "http://canary.com/x"}}, "backup_signals.ping_url", "everybody on the way"),
        ({"backup_signals": {"sentry_url": "canary"}}, "backup_signals.sentry_url", "it is no address of a server"),
        (
            {"backup_signals": {"sentry_url": "https://canary@sentry.io/1"}},
            "backup_signals.sentry_url",
            "a name or password in it would be seen",
        ),
    ],
)
def test_everything_else(settings: dict[str, Any], setting: str, why: str) -> None:
    (sentence,) = said(LOCAL, **settings)
    assert sentence.startswith(f"{setting} is "), sentence
    assert why in sentence
    assert "canary" not in sentence


def test_all_of_it_at_once() -> None:
    """What is wrong in one place keeps nothing from being said of another."""
    found = said(
        {**S3, "name": "X", "url": "", "path": ""},
        {**SFTP, "host": "", "host_keys": []},
        backup_schedule={"run": "x", "drill": "y"},
        backup_rpo="z",
        backup_retention={"daily": -1},
    )
    assert len(found) == 9, found


def test_the_filter_says_what_is_wrong() -> None:
    wanted = FilterModule().filters()["backup_model"]
    assert wanted({"backup_repositories": [LOCAL]}, "web1")["config"]["host"] == "web1"
    with pytest.raises(Exception, match="backup_model: expects the role's settings as a dict"):
        wanted([], "web1")


@pytest.mark.parametrize(("text", "wanted"), [("1y6m", 545 * 86400), ("12h", 43200), ("", -1), ("7", -1)])
def test_spans_as_restic_has_them(text: str, wanted: float) -> None:
    assert model.span(text) == pytest.approx(wanted)
