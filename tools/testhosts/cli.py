# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command line of the test hosts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import docker  # type: ignore[import-untyped]

from . import engine, host, image, inventory
from .common import Stop, say

Item = TypeVar("Item")
Result = TypeVar("Result")


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="testhosts", description="Throw-away Debian hosts for this collection.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("engine", help="find or start the Docker engine, or stop the one started here")
    command.add_argument("action", choices=("start", "stop"))

    command = commands.add_parser("image", help="build the images of Debian releases")
    command.add_argument("releases", nargs="+", choices=tuple(image.SUITES), metavar="RELEASE")

    command = commands.add_parser("up", help="boot hosts (and start the engine and build images where needed)")
    command.add_argument("hosts", nargs="+", metavar="NAME[:RELEASE]")
    command.add_argument("--release", default="", choices=tuple(image.SUITES), help="for names without one")
    command.add_argument("--publish", action="append", default=[], metavar="HERE:THERE", help="a port on 127.0.0.1")
    command.add_argument("--network", default="", metavar="NET", help="hosts on one network find each other by name")

    command = commands.add_parser("inventory", help="print an Ansible inventory")
    command.add_argument("names", nargs="+", metavar="NAME")

    command = commands.add_parser("down", help="remove hosts")
    command.add_argument("names", nargs="*", metavar="NAME")
    command.add_argument("--all", action="store_true", help="every host of this checkout")

    commands.add_parser("list", help="show the hosts of this checkout")

    command = commands.add_parser("exec", help="run a command as root in a host: exec NAME -- ARGV...")
    command.add_argument("name", metavar="NAME")
    return top


def main(argv: Sequence[str]) -> int:
    """Do what the command line says; returns the exit code."""
    words, command = split(argv)
    arguments = parser().parse_args(words)
    try:
        return do(arguments, command)
    except Stop as stop:
        say(str(stop))
        return stop.code
    except docker.errors.APIError as error:
        say(f"Docker refused: {error.explanation or error}")
        return 1
    except docker.errors.DockerException as error:
        say(f"Docker failed: {error}")
        return 1
    except PermissionError as error:
        say(f"This user may not write {error.filename}: run this as the owner of the checkout.")
        return 1
    except OSError as error:  # also what the HTTP library raises when the engine stops answering
        say(f"Failed: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What this program reads, and what ``exec`` has behind the first ``--``: a command that nobody reads here."""
    words = list(argv)
    if words[:1] != ["exec"] or "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def do(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Hand a parsed command line to the part that does it; returns the exit code."""
    match arguments.command:
        case "engine":
            start_or_stop_engine(arguments.action)
        case "image":
            engine.start()
            for tag in in_parallel(image.ensure, unique(arguments.releases)):
                print(tag)
        case "up":
            up(wanted_hosts(arguments))
        case "inventory":
            print(inventory.render([host.record_of(name) for name in arguments.names]), end="")
        case "down":
            down(arguments.names, everything=arguments.all)
        case "list":
            print("\n".join(host.table(engine.client())))
        case "exec":
            return execute(arguments.name, command)
    return 0


def start_or_stop_engine(action: str) -> None:
    """Start the engine, or say that there was no need; or stop it."""
    if action == "stop":
        engine.stop()
    elif engine.start() == "use":
        say(f"engine: one answers already (Docker {engine.client().version()['Version']})")


def execute(name: str, command: Sequence[str]) -> int:
    """Run a command as root in a host; returns its exit code."""
    if not command:
        raise Stop(f"No command to run: exec {name} -- COMMAND...")
    return host.execute(engine.client(), name, command)


def wanted_hosts(arguments: argparse.Namespace) -> list[host.Wanted]:
    """The hosts that ``up`` is to boot."""
    if arguments.publish and len(arguments.hosts) > 1:
        raise Stop("--publish goes with one NAME: a port of this machine leads to one host.")
    hosts = [host.wanted(text, arguments.release, arguments.publish, arguments.network) for text in arguments.hosts]
    if len({one.name for one in hosts}) < len(hosts):
        raise Stop("A host is named twice.")
    return hosts


def up(hosts: Sequence[host.Wanted]) -> None:
    """Boot hosts at the same time, on an engine and from images that are made where they are missing."""
    engine.start()
    releases = unique(one.release for one in hosts)
    images = dict(zip(releases, in_parallel(image.ensure, releases), strict=True))
    in_parallel(lambda one: host.up(one, images[one.release]), hosts)


def down(names: Sequence[str], everything: bool) -> None:
    """Remove hosts; where no engine is up none runs, and it is enough to forget them."""
    if not names and not everything:
        raise Stop("Nothing named: `down NAME` or `down --all`.")
    if engine.nothing_runs(engine.facts_of_this_machine()):
        host.forget(host.recorded() if everything else names)
        say("No Docker engine is up, so no host runs.")
    elif everything:
        host.down_all(engine.client())
    else:
        host.down(engine.client(), names)


def unique(items: Iterable[Item]) -> list[Item]:
    """Each item once, in the order of their first appearance."""
    return list(dict.fromkeys(items))


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Do the work for all items at the same time; when some fail, all that failed is said."""
    with ThreadPoolExecutor(max_workers=max(1, len(items))) as pool:
        futures = [pool.submit(work, item) for item in items]
    failures = [error for future in futures if (error := future.exception()) is not None]
    if len(failures) > 1 and all(isinstance(error, Stop) for error in failures):
        raise Stop("\n".join(map(str, failures)), max(error.code for error in failures if isinstance(error, Stop)))
    return [future.result() for future in futures]
