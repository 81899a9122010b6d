# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the app role that cannot work, each with the sentence that an operator reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils import specs
from ansible_collections.fushuma.production.plugins.plugin_utils.app import problems
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences

OPTIONS = specs.role_options("app")
REFERENCE = "registry.fushuma.com/shop@sha256:" + "0123456789abcdef" * 4
CANARY = "canary-1f0e9d8c7b6a"
WEB = {"name": "web", "port": 3000, "ready": {"path": "/ready"}}


def said(*apps: dict[str, Any], **settings: Any) -> list[str]:
    given = {"app_applications": list(apps), **settings}
    assert not specs.problems(OPTIONS, given), "the shape is wrong already"
    return sentences(problems(specs.filled(OPTIONS, given)))


def shop(**settings: Any) -> dict[str, Any]:
    return {"name": "shop", "image": {"reference": REFERENCE}, "processes": [WEB], **settings}


def process(**settings: Any) -> dict[str, Any]:
    return shop(processes=[{"name": "worker", **settings}])


def web(**settings: Any) -> dict[str, Any]:
    return shop(processes=[{**WEB, **settings}])


def volume(source: str, target: str = "/app/uploads", **settings: Any) -> dict[str, Any]:
    return process(volumes=[{"source": source, "target": target, **settings}])


def env(*variables: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return shop(env=[{"name": "A", **one} for one in variables], **settings)


@pytest.mark.parametrize(
    "app",
    [
        shop(),
        shop(name="a" * 31, network="backend", subnet="172.30.1.0/24", hosts={"db": "172.30.1.1", "six": "fd00::1"}),
        shop(address="10.0.1.21", **{"from": ["10.0.1.0/24", "fd00::/8"]}),
        shop(address="[fd00::21]", **{"from": ["fd00::/8"]}),
        shop(address="10.0.1.21"),
        shop(keep=1, ready_timeout=1, drain_timeout=0),
        shop(processes=[{**WEB, "replicas": 10}], ports="8100-8119"),
        shop(processes=[{"name": "worker"}], ports="8100"),
        web(ready={"path": "/ready", "status": 204, "body": "ok"}),
        process(single=True, replicas=1, stop_timeout=0),
        process(schedule="*-*-* 03:30"),
        process(schedule="Mon..Fri 06:00 Europe/Berlin"),
        process(user="10001"),
        process(user="10001:0", capabilities=["NET_BIND_SERVICE", "CAP_CHOWN"], tmpfs=["/tmp", "/run/app"]),
        process(memory="6m", cpus=0.5, pids=1, connections=[{"host": "db1", "limit": 10}]),
        volume("uploads"),
        volume("/srv/uploads/", "/uploads"),
        volume("/etc/ssl/certs", "/etc/ssl/certs", read_only=True),
        env({}, values={"A": "x"}),
        env({"required": False}),
        env({"default": "x"}),
        env({"default": 0, "type": "int"}),
        env({"secret": True}, secrets={"A": CANARY}),
        env({"secret": True}, migrate={"command": ["migrate"], "secrets": {"A": CANARY}}),
        env({}, migrate={"command": ["migrate"], "values": {"A": "x"}}),
        env({"type": "int"}, values={"A": -5}),
        env({"type": "float"}, values={"A": 0.25}),
        env({"type": "bool"}, values={"A": False}),
        env({"type": "url"}, values={"A": "https://api.fushuma.com/v1"}),
        env({"type": "list"}, values={"A": ["a", 1]}),
        env({"type": "list"}, values={"A": "a,b"}),
        env({"type": "json"}, values={"A": {"b": [1]}}),
        env({"type": "json"}, values={"A": "[1]"}),
        env({"pattern": "[a-z]+"}, values={"A": "abc"}),
        env({"default": "x"}, values={"A": None}),
        env({"required": False, "type": "int"}, values={"A": None}),
        shop(smoke=[{"url": "https://www.fushuma.com/"}]),
        shop(smoke=[{"url": "https://www.fushuma.com:8443/", "address": "[::1]:443"}]),
        shop(smoke=[{"url": "https://www.fushuma.com", "address": "edge1:443"}]),
    ],
)
def test_settings_that_work(app: dict[str, Any]) -> None:
    assert said(app) == []


NETWORK = "it is no network"
A_SECRET = f"a secret of {len(CANARY)} characters"


@pytest.mark.parametrize(
    ("app", "setting", "why"),
    [
        (shop(name="Shop"), "name", "containers and files are called by it"),
        (shop(name="a" * 32), "name", "containers and files are called by it"),
        (
            shop(image={}),
            "image",
            "is missing: an image comes from one place. Write one of reference, archive and build",
        ),
        (shop(image={"reference": REFERENCE, "build": "/a"}), "image", "is reference and build: an image comes from"),
        (shop(image={"reference": "registry.fushuma.com/shop:1.2"}), "image.reference", "a tag is another image tomor"),
        (shop(image={"reference": REFERENCE[:-1]}), "image.reference", "it with its digest"),
        (shop(image={"archive": "/no/such.tar"}), "image.archive", "it cannot be used (No such file or directory)"),
        (shop(image={"archive": __file__}), "image.archive", "is no archive as `docker save` makes it"),
        (shop(image={"build": "/no/such"}), "image.build", "there is no Dockerfile"),
        (shop(processes=[]), "processes", "it would do nothing"),
        (shop(processes=[WEB, {**WEB, "port": 3001}]), "processes[1].name", "processes[0] has it already"),
        (process(name="Web"), "processes[0].name", "containers and files are called by it"),
        (process(name="migrate"), "processes[0].name", "the migration is called so"),
        (web(port=0), "processes[0].port", "ports go from 1 to 65535"),
        (web(port=65536), "processes[0].port", "ports go from 1 to 65535"),
        (web(ready=None), "processes[0].ready", "nobody could tell when visitors may be sent to it"),
        (process(ready={"path": "/r"}), "processes[0].ready", "there is no port on which it could be asked"),
        (web(ready={"path": "ready"}), "processes[0].ready.path", "it is no path"),
        (web(metrics="metrics"), "processes[0].metrics", "it is no plain path"),
        (web(port=None, ready=None, metrics="/metrics"), "processes[0].metrics", "there is no port"),
        (web(schedule="hourly"), "processes[0].schedule", "what runs at its time only can answer nobody"),
        (process(schedule="daily\nExecStart=x"), "processes[0].schedule", "it is no calendar event"),
        (process(schedule=""), "processes[0].schedule", "it is no calendar event"),
        (process(schedule="daily", replicas=2), "processes[0].replicas", "there is one of it at its time"),
        (process(single=True, replicas=2), "processes[0].replicas", "there may never be two of it"),
        (web(single=True), "processes[0].single", "visitors would have nobody between"),
        (process(user="node"), "processes[0].user", "the host cannot know what a name means inside"),
        (process(user="0:10001"), "processes[0].user", "it is root"),
        (process(tmpfs=["tmp"]), "processes[0].tmpfs[0]", "it is no path"),
        (process(tmpfs=["/tmp", "/run:exec"]), "processes[0].tmpfs[1]", "it is no path"),
        (process(capabilities=["chown"]), "processes[0].capabilities[0]", "it is no capability"),
        (process(capabilities=["CAP_SYS_ADMIN"]), "processes[0].capabilities[0]", "could take over the host"),
        (process(capabilities=["ALL"]), "processes[0].capabilities[0]", "could take over the host"),
        (volume("/var/run/docker.sock"), "processes[0].volumes[0].source", "a container is root of the host"),
        (volume("//run/./docker.sock/"), "processes[0].volumes[0].source", "a container is root of the host"),
        (volume("/"), "processes[0].volumes[0].source", "it is a part of the host itself"),
        (volume("/etc/"), "processes[0].volumes[0].source", "it is a part of the host itself"),
        (volume("/srv/../etc"), "processes[0].volumes[0].source", "it is a part of the host itself"),
        (volume("/var/run"), "processes[0].volumes[0].source", "it is a part of the host itself"),
        (volume("/var/lib"), "processes[0].volumes[0].source", "it is a part of the host itself"),
        (volume("./uploads"), "processes[0].volumes[0].source", "it is neither the name of a volume nor a path"),
        (volume("/srv/a:b"), "processes[0].volumes[0].source", "it is neither the name of a volume nor a path"),
        (volume("up", "uploads"), "processes[0].volumes[0].target", "it is no path inside"),
        (volume("up", "/"), "processes[0].volumes[0].target", "it is no path inside"),
        (volume("up", "/a:ro"), "processes[0].volumes[0].target", "it is no path inside"),
        (process(memory="5m"), "processes[0].memory", "it is no size that a container can have"),
        (process(memory="512M"), "processes[0].memory", "it is no size that a container can have"),
        (process(replicas=0), "processes[0].replicas", "it is less than 1"),
        (process(cpus=-1), "processes[0].cpus", "it is less than 0"),
        (process(pids=0), "processes[0].pids", "it is less than 1"),
        (process(stop_timeout=-1), "processes[0].stop_timeout", "it is less than 0"),
        (
            process(connections=[{"host": "db1", "limit": 0}]),
            "processes[0].connections[0].limit",
            "it is less than 1",
        ),
        (shop(keep=0), "keep", "it is less than 1"),
        (shop(ready_timeout=0), "ready_timeout", "it is less than 1"),
        (shop(drain_timeout=-1), "drain_timeout", "it is less than 0"),
        (shop(address="localhost"), "address", "it is no address"),
        (shop(address="0.0.0.0"), "address", "it would answer everybody"),
        (shop(address="::"), "address", "it would answer everybody"),
        (shop(**{"from": "world"}), "from", "only machines that are named may connect"),
        (shop(**{"from": []}), "from", "only machines that are named may connect"),
        (shop(**{"from": ["10.0.0.0/8"]}), "from", "it listens on this host's loopback addresses only"),
        (shop(address="10.0.1.21", **{"from": ["10.0.1.21/24"]}), "from[0]", NETWORK),
        (shop(address="10.0.1.21", **{"from": ["10.0.1.0/24", "0.0.0.0/0"]}), "from[1]", "it is the whole world"),
        (shop(ports="80-99"), "ports", "it is no range of ports from 1024 to 65535"),
        (shop(ports="8119-8100"), "ports", "it is no range of ports from 1024 to 65535"),
        (shop(ports="many"), "ports", "it is no range of ports from 1024 to 65535"),
        (shop(ports="8100-"), "ports", "it is no range of ports from 1024 to 65535"),
        (shop(ports="810²-8119"), "ports", "it is no range of ports from 1024 to 65535"),
        (shop(ports="8100"), "ports", "two releases with 1 replicas each need 2 ports"),
        (web(replicas=11), "ports", 'two releases with 11 replicas each need 22 ports. Write "8100-8121" or more'),
        (shop(network="Back_End"), "network", "it is no name for a network"),
        (shop(subnet="172.30.1.1/24"), "subnet", NETWORK),
        (shop(subnet="9.9.9.0/24"), "subnet", "others in the world have it"),
        (shop(hosts={"db": "db1"}), "hosts.db", "it is no address"),
        (shop(smoke=[{"url": "http://www.fushuma.com/"}]), "smoke[0].url", "visitors come over TLS"),
        (shop(smoke=[{"url": "https:///health"}]), "smoke[0].url", "visitors come over TLS"),
        (shop(smoke=[{"url": "https://[::1/"}]), "smoke[0].url", "it is no URL"),
        (shop(smoke=[{"url": "https://www.fushuma.com:99999/"}]), "smoke[0].url", "it is no URL"),
        (
            shop(smoke=[{"url": "https://www.fushuma.com", "address": "127.0.0.1"}]),
            "smoke[0].address",
            "it is no host with a port",
        ),
        (shop(migrate={"command": []}), "migrate.command", "it would do nothing"),
        (shop(migrate={"command": ["m"], "timeout": 0}), "migrate.timeout", "it is less than 1"),
    ],
)
def test_settings_that_cannot_work(app: dict[str, Any], setting: str, why: str) -> None:
    (found,) = said(app)
    assert found.startswith(f"app_applications[0].{setting} is ")
    assert why in found


@pytest.mark.parametrize(
    ("app", "setting", "why"),
    [
        (env({}), "values.A", "is missing: the application needs it. Write its value."),
        (env({"description": "Which shop"}), "values.A", "is missing: the application needs it: Which shop."),
        (env({"type": "int"}), "values.A", "Write a whole number."),
        (env({}, values={"A": None}), "values.A", "is missing: "),
        (env({"secret": True}), "secrets.A", "Write the output of `openssl rand -hex 24`"),
        (shop(env=[{"name": "A-B", "required": False}]), "env[0].name", "it is no name of a variable"),
        (env({"required": False}, {"required": False}), "env[1].name", "env[0] has it already"),
        (env({"secret": True, "default": CANARY}), "env[0].default", f"is {A_SECRET}: everybody would know the secret"),
        (env({"type": "int", "default": "x"}), "env[0].default", "it is no int"),
        (env({"pattern": "("}, values={"A": "x"}), "env[0].pattern", "it is no regular expression"),
        (env({"pattern": "(", "default": "x"}), "env[0].pattern", "it is no regular expression"),
        (shop(values={"B": "x"}), "values.B", "env has no variable of this name. Write it into env first."),
        (env({"default": "x"}, values={"B": "x"}), "values.B", "no variable of this name. Write one of A, or it into"),
        (env({"default": "x"}, secrets={"B": CANARY}), "secrets.B", f"is {A_SECRET}: env has no variable of this name"),
        (env({"secret": True}, values={"A": CANARY}), "values.A", f"is {A_SECRET}: it is a secret. Write it below"),
        (env({}, secrets={"A": CANARY}), "secrets.A", f"is {A_SECRET}: env does not say that it is a secret"),
        (env({"type": "int"}, values={"A": "0.5"}), "values.A", "it is no int. Write a whole number"),
        (env({"type": "float"}, values={"A": "half"}), "values.A", "it is no float"),
        (env({"type": "bool"}, values={"A": "yes please"}), "values.A", "it is no bool"),
        (env({"type": "url"}, values={"A": "api.fushuma.com"}), "values.A", "it is no url"),
        (env({"type": "json"}, values={"A": "{"}), "values.A", "it is no JSON"),
        (env({}, values={"A": ["a"]}), "values.A", "it is no str. Write one text"),
        (env({}, values={"A": {"a": 1}}), "values.A", "it is no str. Write one text"),
        (env({}, values={"A": "a\nB=c"}), "values.A", "has one line for each variable. Write it as base64"),
        (env({}, values={"A": "a\r"}), "values.A", "has one line for each variable. Write it as base64"),
        (env({}, values={"A": "a\0"}), "values.A", "has one line for each variable. Write it as base64"),
        (env({"pattern": "[a-z]+"}, values={"A": "a1"}), "values.A", "it does not fit the pattern [a-z]+"),
        (env({"secret": True, "pattern": "x+"}, secrets={"A": CANARY}), "secrets.A", f"is {A_SECRET}: it does not fit"),
        (env({}, values={"A": "change-me"}), "values.A", "it is a placeholder"),
        (env({}, values={"A": "<your shop>"}), "values.A", "it is a placeholder"),
        (env({}, values={"A": "x"}, migrate={"command": ["m"], "values": {"B": 1}}), "migrate.values.B", "no variable"),
        (
            env({}, values={"A": "x"}, migrate={"command": ["m"], "secrets": {"A": CANARY}}),
            "migrate.secrets.A",
            "env does not say that it is a secret",
        ),
        (
            env({"type": "int"}, values={"A": 1}, processes=[{**WEB, "values": {"A": "x"}}]),
            "processes[0].values.A",
            "it is no int",
        ),
    ],
)
def test_environments_that_cannot_work(app: dict[str, Any], setting: str, why: str) -> None:
    (found,) = said(app)
    assert found.startswith(f"app_applications[0].{setting} is ")
    assert why in found
    assert "canary" not in found


def test_two_of_a_kind() -> None:
    (found,) = said(shop(), shop(ports="8200-8219"))
    assert found == 'app_applications[1].name is "shop": app_applications[0] has it already. Write another name.'


def test_two_applications_may_not_write_one_volume() -> None:
    one = {"source": "/srv/uploads", "target": "/u"}
    same = {"source": "/srv/uploads/", "target": "/v"}
    mine = shop(processes=[{"name": "a", "volumes": [one]}, {"name": "b", "volumes": [same]}])
    assert said(mine) == []
    other = {**process(volumes=[{"source": "own", "target": "/o"}, same]), "name": "another"}
    (found,) = said(mine, other)
    assert found.startswith('app_applications[1].processes[0].volumes[1].source is "/srv/uploads/": ')
    assert "app_applications[0].processes[0].volumes[0].source writes it too" in found
    assert said(mine, {**process(volumes=[{**same, "read_only": True}]), "name": "other"}) == []


def test_names_that_would_meet_on_the_host() -> None:
    one = {**process(name="admin"), "name": "shop-web"}
    (found,) = said(shop(processes=[WEB, {"name": "web-admin"}]), one)
    assert found.startswith('app_applications[1].processes[0].name is "admin": ')
    assert "app_applications[0].processes[1] would have a container of the same name" in found


def test_nginx_elsewhere_cannot_ask_on_a_loopback_address() -> None:
    (found,) = said(shop(), app_edges=["edge1", "edge2"])
    assert found.startswith('app_applications[0].address is "127.0.0.1": nginx asks from edge1, edge2 too')
    assert said(process(), app_edges=["edge1"]) == []
    assert said(shop(address="10.0.1.21"), app_edges=["edge1"]) == []


def test_an_image_built_or_saved_here(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n", "utf-8")
    assert said(shop(image={"build": str(tmp_path)})) == []


def test_what_is_handed_over_need_not_be_given() -> None:
    settings = shop(env=[{"name": "SENTRY_DSN", "type": "url"}])
    dsn = {"application": "shop", "dsn": "https://a@errors.fushuma.com/2"}
    assert said(settings, app_dsns=[dsn]) == []
    (found,) = said(settings, app_dsns=[{**dsn, "application": "other"}])
    assert "the application needs it" in found
