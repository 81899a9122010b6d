# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Docker's configuration on the host itself: judged by its own daemon, and brought without stopping a container.

`converged` makes up to three transactions of it: containers are made to outlive the daemon, then the daemon gets its
configuration, then its group its members. What must not be is said before the first of them (`Judgement`).
"""

from __future__ import annotations

import pwd
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.fushuma.production.plugins.module_utils import docker_api, merging, packages
from ansible_collections.fushuma.production.plugins.module_utils.journal import (
    Entry,
    Store,
    TransactionError,
    run,
    snapshot,
    units,
)
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe, complaint
from ansible_collections.fushuma.production.plugins.module_utils.transaction import File, Outcome, Service, converge

CONFIG = "/etc/docker/daemon.json"
DATA_ROOT = "/var/lib/docker"
UNIT, PRUNE_TIMER = "docker.service", "docker-prune.timer"
GROUP = "docker"
# Settings of Docker's own bridge, and under which name the bridge itself has them.
BRIDGE = {"icc": "com.docker.network.bridge.enable_icc", "ip": "com.docker.network.bridge.host_binding_ipv4"}
GROUP_FILES = ("/etc/group", "/etc/gshadow")
PROGRAMS = "/usr/sbin:/usr/bin"  # Debian has its dockerd in the first, Docker in the second
ANSWERS = Probe(http="http://docker/_ping", socket=docker_api.SOCKET, body="OK")
KEEPS = Probe(exec=["docker", "info", "--format", "live-restore {{.LiveRestoreEnabled}}"], body="live-restore true")


@dataclass(frozen=True)
class Wanted:
    """What the settings say.

    rivals:    packages of another source of Docker, which cannot be there too.
    operators: all members of the group that may use Docker.
    prune:     whether the timer that prunes is to run.
    """

    rivals: Sequence[str] = ()
    operators: Sequence[str] = ()
    prune: bool = True


def converged(base: Service, wanted: Wanted, store: Callable[[str], Store], *, check: bool = False) -> Outcome:
    """Bring Docker to what is wanted, or raise TransactionError with everything as it was before.

    base: the packages and files, Docker's configuration among them. ``store(name)`` gives the record of a transaction.
    """
    refuse_rivals(wanted.rivals)
    service = replace(
        base,
        name="docker",
        units=[UNIT, PRUNE_TIMER] if wanted.prune else [UNIT],
        idle=[] if wanted.prune else [PRUNE_TIMER],
        judges=[Judgement(wanted.operators)],
        probes=[ANSWERS],
    )
    main, outcomes = store("docker"), []
    config = next((file for file in service.files if file.dest == CONFIG), None)
    if config and may_stop_containers(config, main):
        # A dry run is where it is refused before anything is touched.
        converge(service, main, check=True)
        outcomes.append(converge(keeping_containers(config), store("docker-live-restore"), check=check))
    outcomes.append(converge(service, main, check=check))
    outcomes.append(
        converge(Service("docker-operators", members(wanted.operators)), store("docker-operators"), check=check)
    )
    return whole(outcomes)


def whole(outcomes: Sequence[Outcome]) -> Outcome:
    """What several transactions did, as one outcome."""
    return Outcome(
        packages=[name for one in outcomes for name in one.packages],
        changes=[change for one in outcomes for change in one.changes],
        commands=[argv for one in outcomes for argv in one.commands],
        healed=any(one.healed for one in outcomes),
    )


def refuse_rivals(names: Sequence[str]) -> None:
    """Packages of both sources conflict, and apt would take away those that are there with all that runs by them."""
    gone = packages.missing(names)
    there = [name for name in names if name not in gone]
    if there:
        raise TransactionError(
            f"docker: this host has {' and '.join(there)}, of another source than docker_source says. Nothing "
            "was changed. Set docker_source to what is installed; or, to change it, stop the containers and run "
            f"`apt-get remove {' '.join(there)}`. What is in {DATA_ROOT} stays."
        )


# --- containers outlive the daemon -----------------------------------------------------------------------------------


def may_stop_containers(config: File, store: Store) -> bool:
    """Whether a daemon runs that takes its containers along when it is restarted, and that is to be restarted."""
    if not merging.parsed(config.content or b"").get("live-restore"):
        return False
    if (store.activated() or {}).get(CONFIG) == snapshot(CONFIG).digest:
        return False  # it runs with what is there, and that has been brought by a former run
    return units([UNIT])[0].active and bool(complaint(KEEPS))


def keeping_containers(config: File) -> Service:
    """The one setting that a daemon takes up without a restart, so that it leaves its containers alone at the next."""
    alone = replace(config, content=merging.written({"live-restore": True}), on_change="reload")
    return Service("docker-live-restore", [alone], units=[UNIT], probes=[KEEPS])


# --- what must not be ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """What would go wrong with the planned files; asked before one of them is written."""

    operators: Sequence[str] = ()

    def __call__(self, planned: Mapping[str, Entry]) -> str:
        return " ".join([*unknown(self.operators), *self._wrong_config(planned.get(CONFIG))])

    def _wrong_config(self, after: Entry | None) -> Iterator[str]:
        if after is None:
            return
        before, data = merging.parsed(snapshot(CONFIG).data), merging.parsed(after.data)
        hidden = list(hidden_data(before, data))
        yield from hidden
        swarm = Path(str(data.get("data-root") or DATA_ROOT), "swarm", "docker-state.json")
        if data.get("live-restore") and swarm.exists():
            yield (
                "This host is part of a swarm, whose daemons cannot leave their containers running. Set live_restore: "
                "false in docker_hardening, or have the host leave the swarm."
            )
        if not hidden:
            yield from objections(data)


def unknown(operators: Iterable[str]) -> Iterator[str]:
    known = {user.pw_name for user in pwd.getpwall()}
    for name in operators:
        if name not in known:
            yield f"docker_operators names {name}, and this host has no such user. Make the user first."


def hidden_data(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What Docker would not see any more, because it would look for its data elsewhere."""
    for key in ("data-root", "userns-remap"):
        if (before.get(key) or "") == (after.get(key) or ""):
            continue
        for folder in stores(Path(str(before.get("data-root") or DATA_ROOT)), bool(before.get("userns-remap"))):
            held = holds(folder)
            if held:
                yield (
                    f"With {key} {shown(after.get(key))} in the place of {shown(before.get(key))} Docker would look "
                    f"elsewhere and not see the {' and '.join(held)} in {folder}. Leave it as it is, or save what is "
                    "needed and remove them first."
                )
                return


def shown(value: object) -> str:
    return f'"{value}"' if value else "none"


def stores(root: Path, remapped: bool) -> list[Path]:
    """Where a daemon keeps its data: where users are remapped, in a folder for each first uid and gid."""
    if not remapped:
        return [root]
    return sorted(path for path in root.glob("*") if re.fullmatch(r"\d+\.\d+", path.name))


def holds(folder: Path) -> list[str]:
    """Which kinds of data are there."""
    patterns = {
        "containers": "containers/*",
        "images": "image/*/imagedb/content/sha256/*",
        "volumes": "volumes/*/_data",
    }
    return [kind for kind, pattern in patterns.items() if any(folder.glob(pattern))]


def objections(config: merging.Object) -> Iterator[str]:
    """What the host's own dockerd says against a configuration.

    Whose ids stand for users it does not see: to judge that, dockerd would make its own user for them.
    """
    program = shutil.which("dockerd", path=PROGRAMS)
    if not program:
        return
    with tempfile.TemporaryDirectory(prefix="docker-judge-") as name:
        path = Path(name, "daemon.json")
        harmless = {key: value for key, value in config.items() if key != "userns-remap"}
        path.write_bytes(merging.written(harmless))
        judged = run([program, "--validate", "--config-file", str(path)])
        objection = judged.output if judged.code else ""
        if "unknown flag: --validate" in objection:
            objection = _said_in_vain(program, Path(name), harmless)
    if objection:
        yield f"dockerd refuses {CONFIG}: {objection.splitlines()[-1].replace(str(path), CONFIG)}."


def _said_in_vain(program: str, folder: Path, config: merging.Object) -> str:
    """The objection of a dockerd without ``--validate`` (before 23): it never starts, for it finds another running.

    It reads its whole configuration before it looks whether the process of its pid file, here the first of all, runs.
    Places are taken out of the copy, for they would be made; what it mounts goes with its namespace.
    """
    places = ("data-root", "exec-root", "pidfile")
    path, pid = folder / "daemon.json", folder / "pid"
    path.write_bytes(merging.written({key: value for key, value in config.items() if key not in places}))
    pid.write_text("1", "ascii")
    elsewhere = ["--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")]
    judged = run(["unshare", "--mount", program, "--config-file", str(path), "--pidfile", str(pid), *elsewhere])
    return "" if f"delete {pid}" in judged.output else judged.output


def waiting() -> list[str]:
    """What the daemon has not taken up, though it was restarted: its own bridge stays while a container runs on it."""
    config = merging.parsed(snapshot(CONFIG).data)
    try:
        options = docker_api.asked("/networks/bridge")["Options"]
    except docker_api.Unanswered:
        return []  # there is no daemon (yet), or it has no such bridge
    late = [key for key, option in BRIDGE.items() if key in config and options.get(option) != json_word(config[key])]
    if not late:
        return []
    return [
        f"docker: {' and '.join(late)} in {CONFIG} wait until the daemon starts while no container runs, for Docker "
        "leaves its bridge alone until then. Boot the host, or stop all containers and restart docker.service."
    ]


def json_word(value: object) -> str:
    """true and false as Docker writes them, everything else as it is."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- who may use it --------------------------------------------------------------------------------------------------


def members(operators: Sequence[str]) -> list[File]:
    """The files of groups with exactly these members in Docker's; none where the host has no such group (yet)."""
    found = []
    for entry in map(snapshot, GROUP_FILES):
        text = entry.data.decode("utf-8")
        changed = with_members(text, GROUP, operators)
        if entry.kind == "file" and changed != text:
            owner, group = str(entry.uid), str(entry.gid)
            found.append(File(entry.path, changed.encode(), owner, group, entry.mode, on_change="nothing"))
    return found


def with_members(text: str, group: str, wanted: Sequence[str]) -> str:
    """A file as group(5) and gshadow(5) have it, with these members of a group, in whichever order they stand there."""

    def line(found: re.Match[str]) -> str:
        same = sorted(filter(None, found[2].split(","))) == sorted(set(wanted))
        return found[0] if same else found[1] + ",".join(wanted)

    return re.sub(rf"^({re.escape(group)}:[^:\n]*:[^:\n]*:)([^:\n]*)$", line, text, flags=re.MULTILINE)
