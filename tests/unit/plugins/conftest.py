"""A host in a folder: a systemctl that keeps its units in files, and an engine whose state lies beside it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from tempfile import TemporaryDirectory
from threading import Thread
from typing import ClassVar
from urllib.parse import unquote

import pytest
from ansible_collections.fushuma.production.plugins.module_utils import docker_api, transaction
from ansible_collections.fushuma.production.plugins.module_utils.journal import Store
from ansible_collections.fushuma.production.plugins.module_utils.transaction import Directory, File, Service

# Unit NAME exists while units/NAME does; NAME.active and NAME.enabled say the rest, NAME.limited that it was started
# too often. `fail` lists what shall fail.
SYSTEMCTL = """\
#!/bin/sh
cd "$(dirname "$0")" || exit 1
verb=$1; shift
if [ "$verb" = show ]; then
  [ -e mute ] && exit 1
  shift 2; first=yes
  for name; do
    [ $first = yes ] || echo
    first=no
    if [ -e "units/$name" ]; then echo LoadState=loaded; else echo LoadState=not-found; fi
    if [ -e "units/$name.active" ]; then echo ActiveState=active; else echo ActiveState=inactive; fi
    if [ -e "units/$name.enabled" ]; then echo UnitFileState=enabled; else echo UnitFileState=disabled; fi
    if [ -e stale ]; then echo NeedDaemonReload=yes; else echo NeedDaemonReload=no; fi
  done
  exit 0
fi
[ "$verb" = reset-failed ] && { rm -f "units/$1.limited"; exit 0; }
said="$verb${*:+ $*}"
echo "$said" >> log
case $verb in start|restart|reload-or-restart)
  for name; do [ -e "units/$name.limited" ] && { echo "$name was started too often"; exit 1; }; done
esac
if grep -qxF "$said" fail 2>/dev/null; then echo "$said refused"; exit 1; fi
case $verb in
  daemon-reload) rm -f stale ;;
  start|restart|reload-or-restart) for name; do touch "units/$name.active"; done ;;
  stop) for name; do rm -f "units/$name.active"; done ;;
  enable) for name; do touch "units/$name.enabled"; done ;;
  disable)
    [ "$1" = --now ] && { shift; for name; do rm -f "units/$name.active"; done; }
    for name; do rm -f "units/$name.enabled"; done ;;
esac
"""


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """A program's main() sets these for its whole process."""
    mask, handler = os.umask(0o022), signal.getsignal(signal.SIGTERM)
    yield
    os.umask(mask)
    signal.signal(signal.SIGTERM, handler)


@dataclass
class Host:
    """The folder that plays the host."""

    root: Path
    bin: Path
    store: Store

    def path(self, name: str) -> Path:
        return self.root / name

    def write(self, name: str, content: str, mode: int = 0o644) -> Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
        path.chmod(mode)
        return path

    def tree(self) -> dict[str, object]:
        """All paths with their content, mode and kind."""
        found: dict[str, object] = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                found[name] = ("link", os.readlink(path))
            elif path.is_dir():
                found[name] = ("directory", path.stat().st_mode)
            else:
                found[name] = (path.read_bytes(), path.stat().st_mode)
        return found

    def unit(self, name: str, *, active: bool = False, enabled: bool = False) -> None:
        (self.bin / "units" / name).touch()
        for flag, wanted in (("active", active), ("enabled", enabled)):
            path = self.bin / "units" / f"{name}.{flag}"
            path.touch() if wanted else path.unlink(missing_ok=True)

    def is_(self, flag: str, name: str) -> bool:
        return (self.bin / "units" / f"{name}.{flag}").exists()

    def fail(self, *commands: str) -> None:
        (self.bin / "fail").write_text("\n".join(commands) + "\n", "utf-8")

    def program(self, name: str, script: str) -> list[str]:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)
        return [str(path)]

    def commands(self) -> list[str]:
        """What systemctl was told since the last question."""
        log = self.bin / "log"
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    root, programs = tmp_path / "root", tmp_path / "bin"
    root.mkdir()
    (programs / "units").mkdir(parents=True)
    (programs / "systemctl").write_text(SYSTEMCTL, "utf-8")
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(transaction, "SYSTEMD", tmp_path / "systemd")
    return Host(root, programs, Store("web", tmp_path / "state"))


ServiceMaker = Callable[..., Service]


@pytest.fixture
def service(host: Host) -> ServiceMaker:
    """Makes services out of ``{name below the root: text, None for absent}``, owned by whoever runs the tests."""
    me, us = str(os.geteuid()), str(os.getegid())

    def make(files: dict[str, str | None] | None = None, **options: object) -> Service:
        folders = [
            Directory(str(host.path(name)), me, us, prune=True)
            for name in options.pop("prune", [])  # type: ignore[attr-defined]
        ]
        wanted = [
            File(str(host.path(name)), None if text is None else text.encode(), me, us)
            for name, text in (files or {}).items()
        ]
        return Service("web", files=options.pop("raw", wanted), directories=folders, **options)  # type: ignore[arg-type]

    return make


class Api(BaseHTTPRequestHandler):
    """Docker's API, as far as it is asked."""

    answers: ClassVar[dict[str, object]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        path, _mark, _query = self.path.partition("?")
        self.asked.append(unquote(self.path))
        found = self.answers.get(path)
        self.send_response(404 if found is None else 200)
        self.end_headers()
        told = {"message": f"{path} not found"} if found is None else found
        self.wfile.write(told if isinstance(told, bytes) else json.dumps(told).encode())

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def docker_daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Api]]:
    """A daemon that says what is in ``answers``, and notes what it was asked."""
    monkeypatch.setattr(Api, "answers", {"/_ping": b"OK"})
    monkeypatch.setattr(Api, "asked", [])
    with TemporaryDirectory() as folder:  # the name of a socket is short
        monkeypatch.setattr(docker_api, "SOCKET", f"{folder}/docker.sock")
        with ThreadingUnixStreamServer(docker_api.SOCKET, Api) as server:
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
            yield Api
            server.shutdown()
