"""Preflight names, in one run, everything of an application and its data that cannot work, and contacts no host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from .test_example import preflight

CANARY = "canary-5e1f0c7d9a3b"


def an_app(name: str, **more: Any) -> dict[str, Any]:
    web = {
        "name": "web",
        "port": 3000,
        "ready": {"path": "/ready"},
        "volumes": [{"source": "files", "target": "/files"}],
    }
    image = {"reference": f"registry.fushuma.com/{name}@sha256:{'a' * 64}"}
    return {"name": name, "image": image, "processes": [{**web, **more.pop("web", {})}], **more}


POOLS = {"host": "all1", "processes": 4, "pools": 2, "limit": 10}
SETTINGS: dict[str, Any] = {
    "host_memory": "2gb",
    "redis_admin_password": CANARY,
    "redis_instances": [
        {"name": "jobs", "use": "queue", "policy": "allkeys-lru", "port": 8105, "memory": "1gb"},
    ],
    "mariadb_databases": [{"name": "shop"}],
    "mariadb_max_connections": 100,
    "backup_repositories": [
        {
            "name": "offsite",
            "kind": "s3",
            "url": "http://s3.fushuma.com",
            "path": "all1",
            "access_key": "A1",
            "secret_key": f"{CANARY}-1",
            "password": f"{CANARY}-2",
        }
    ],
    "backup_schedule": {"run": "17 2 * * 1-5"},
    "backup_paths": ["/etc", "/var/lib"],
    "app_applications": [
        an_app(
            "shop", web={"memory": "2g", "connections": [{"host": "all1", "processes": 4, "pools": 2, "limit": 10}]}
        ),
        an_app(
            "blog",
            image={"reference": "registry.fushuma.com/blog:latest"},
            ports="8200-8219",
            env=[{"name": "TOKEN", "secret": True}],
            secrets={"TOKEN": "changeme"},
            replica=2,
        ),
    ],
}

WANTED = {
    "a pool sum over max_connections": "mariadb_max_connections is 100: applications may open 2 x 4 x 2 x 10 (shop web",
    "memory that does not fit": "and three quarters of it are 1536 MB",
    "two things on one port": "redis_instances[0].port listens there too",
    "a tag where a digest is demanded": "a tag is another image tomorrow",
    "a placeholder": "app_applications[1].secrets.TOKEN is a secret of 8 characters: it is a placeholder",
    "a policy that loses a queue": "a queue would lose jobs where memory is full",
    "a volume that two apps write": "app_applications[0].processes[0].volumes[0].source writes it too",
    "backups without TLS": 'backup_repositories[0].url is "http://s3.fushuma.com": everybody on the way could read',
    "backups that are too far apart": "backups are up to 3d and 15m of random_delay apart",
    "files of a running database": 'backup_paths[1] is "/var/lib": /var/lib/mysql is in it',
    "an unknown key": "app_applications[1].replica is 2: nothing reads a setting of this name",
}


def written(folder: Path, settings: dict[str, Any]) -> Path:
    groups = {group: {"hosts": {"all1": {"ansible_host": "192.0.2.1"}}} for group in ("edge", "app", "data")}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"vars": settings, "children": groups}}))
    return folder / "hosts.yml"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What preflight says of settings that are wrong in one way, and the same corrected, as one text each."""
    found = {}
    for name, settings in {"wrong": SETTINGS, "right": right()}.items():
        done = preflight(written(tmp_path_factory.mktemp(name), settings))
        assert (done.returncode == 0) == (name == "right"), done.stdout
        found[name] = " ".join(done.stdout.split())
    return found


def right() -> dict[str, Any]:
    """The same without what is wrong."""
    blog = an_app("blog", ports="8200-8219", env=[{"name": "TOKEN", "secret": True}], secrets={"TOKEN": CANARY})
    blog["processes"][0]["volumes"][0]["source"] = "blog-files"
    return {
        **SETTINGS,
        "host_memory": "12gb",
        "redis_instances": [{"name": "jobs", "use": "queue", "port": 6380, "memory": "1gb"}],
        "mariadb_max_connections": 200,
        "backup_repositories": [{**SETTINGS["backup_repositories"][0], "url": "https://s3.fushuma.com"}],
        "backup_schedule": {},
        "backup_exclude": ["/var/lib/mysql", "/var/lib/redis"],
        "app_applications": [SETTINGS["app_applications"][0], blog],
    }


@pytest.mark.parametrize("what", WANTED)
def test_it_is_refused_by_name(said: dict[str, str], what: str) -> None:
    assert WANTED[what] in said["wrong"]


def test_no_secret_is_repeated(said: dict[str, str]) -> None:
    assert CANARY not in said["wrong"]
    assert "changeme" not in said["wrong"]
