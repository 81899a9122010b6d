# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Loki's program and its schema on the host. Runs there by itself, with the standard library only.

``try``: is the new configuration one that Loki takes, and does it leave the periods alone that are in force?
``install``: have the program that release.json names. ``installed``: is it there? ``rules``: does Loki understand them?

Where the program comes out of an archive each release has a folder of its own, which the unit names: a unit that is
put back works with the release of before.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

RELEASE = Path("/etc/loki/release.json")
CONFIG = Path("/etc/loki/config.yml")
SECRETS = Path("/etc/loki/environment")
# What stood there before the change that is under way (module_utils/journal.py).
JOURNAL = Path("/var/lib/fushuma-production/loki.journal")

PIECE = 1024 * 1024  # bytes
SILENCE = 30  # seconds
SHOWN = 20  # lines of what Loki says
# The program as releases name it in their archives.
NAME = re.compile(r"(.*/)?loki(-linux-[a-z0-9]+)?")
PERIOD = re.compile(r"(?:- )?\s*(from|store|object_store|schema|prefix|period):\s*(\S+)")

Period = Mapping[str, str]


class Refused(Exception):
    """Why it cannot be, in words for the operator."""


# Whatever an archive, a program or the network may have against it.
FAULTS = (Refused, OSError, EOFError, ValueError, subprocess.SubprocessError, tarfile.TarError, zipfile.BadZipFile)


# --- the program -----------------------------------------------------------------------------------------------------


def installed(release: Mapping[str, Any]) -> bool:
    """Whether the program is there, in the version that is wanted."""
    if not os.access(release["binary"], os.X_OK):
        return False
    return bool(release.get("sha256")) or package_version() == release["version"]


def package_version() -> str:
    """The version of the package; "" where there is none."""
    asked = ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Version}", "loki"]
    status, _space, version = output_of(asked).partition(" ")
    return version if status == "installed" else ""


def output_of(argv: Sequence[str]) -> str:
    """What a program says; "" where it fails."""
    # AnsibleModule.run_command is not there when this file runs by itself.
    done = subprocess.run(list(argv), capture_output=True, text=True, check=False)  # pylint: disable=ansible-bad-function
    return done.stdout if done.returncode == 0 else ""


def install(release: Mapping[str, Any]) -> None:
    """Have the program. What is neither of this release nor of the one before goes."""
    if installed(release):
        return
    if release.get("sha256"):
        unpack(release)
    else:
        install_package(release["version"])


def install_package(version: str) -> None:
    """An older version than the present one too. The configuration that is there stays."""
    argv = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=60", "install", "--yes", "--no-install-recommends"]
    argv += ["--allow-downgrades", "--allow-change-held-packages", "-o", "Dpkg::Options::=--force-confold"]
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        [*argv, f"loki={version}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode:
        raise Refused(f"apt-get cannot install loki={version}: {last_lines(done.stdout)}")


def unpack(release: Mapping[str, Any]) -> None:
    """The program out of its archive, beside those of other releases."""
    binary = Path(release["binary"])
    for parent in (binary.parent.parent, binary.parent):
        parent.mkdir(parents=True, exist_ok=True)
        # Root's umask may close what it makes to all others, and Loki is no longer root when it begins.
        parent.chmod(0o755)
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        archive = Path(folder, "archive")
        with archive.open("wb") as out:
            found = digest_of(out, opened(release["source"]))
        if found != release["sha256"].lower():
            raise Refused(f"{release['source']} has the SHA-256 {found} and not {release['sha256']}, so it is not used")
        program = Path(folder, "program")
        with program.open("wb") as out, program_in(archive) as source:
            shutil.copyfileobj(source, out, PIECE)
        program.chmod(0o755)
        program.replace(binary)


def opened(source: str) -> IO[bytes]:
    """The archive, from wherever it comes."""
    try:
        if "://" not in source:
            return open(source, "rb")
        return urllib.request.build_opener().open(source, timeout=SILENCE)  # type: ignore[no-any-return]
    except (OSError, ValueError) as error:
        raise Refused(f"{source} cannot be read: {error}") from error


def digest_of(out: IO[bytes], source: IO[bytes]) -> str:
    """Copy a file, and say its SHA-256."""
    total = hashlib.sha256()
    with source:
        while piece := source.read(PIECE):
            total.update(piece)
            out.write(piece)
    return total.hexdigest()


@contextlib.contextmanager
def program_in(archive: Path) -> Iterator[IO[bytes]]:
    """The program in an archive of a release, or the file itself where it is a program."""
    with archive.open("rb") as file:
        kind = file.read(8)
    if kind.startswith((b"\x7fELF", b"#!")):
        with archive.open("rb") as found:
            yield found
    elif kind.startswith(b"PK"):
        with zipfile.ZipFile(archive) as packed, packed.open(only(packed.namelist())) as found:
            yield found
    elif kind == b"!<arch>\n":
        tree = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE, check=True).stdout
        with program_in_tar(io.BytesIO(tree)) as found:
            yield found
    elif kind.startswith(b"\x1f\x8b"):
        with archive.open("rb") as file, program_in_tar(file) as found:
            yield found
    else:
        raise Refused("the archive is neither a zip, a deb, a tar.gz nor a program")


@contextlib.contextmanager
def program_in_tar(file: IO[bytes]) -> Iterator[IO[bytes]]:
    with (
        tarfile.open(fileobj=file) as packed,
        packed.extractfile(only([one.name for one in packed if one.isfile()])) as found,  # type: ignore[union-attr]
    ):
        yield found


def only(names: Sequence[str]) -> str:
    """The one that is the program."""
    found = [name for name in names if NAME.fullmatch(name)]
    if len(found) != 1:
        raise Refused(f"the archive has {len(found)} files that are called loki or loki-linux-…, and not one")
    return found[0]


def tidy(release: Mapping[str, Any], former: Mapping[str, Any]) -> None:
    """Remove what is neither of this release nor of the one before."""
    if not release.get("sha256"):
        return
    kept = {Path(one["binary"]).parent for one in (release, former) if "binary" in one}
    for folder in set(Path(release["binary"]).parent.parent.iterdir()) - kept:
        shutil.rmtree(folder, ignore_errors=True)


# --- the schema ------------------------------------------------------------------------------------------------------


def periods_in(text: str) -> list[Period]:
    """The periods of a configuration, as far as they decide on how data is found again.

    There may be no YAML on the host, so this reads only as much of it as ``schema_config`` needs.
    """
    found: list[dict[str, str]] = []
    inside = False
    for line in text.splitlines():
        if line and line[0] not in " \t-#":
            inside = line.startswith("schema_config:")
        elif inside and (part := PERIOD.match(line.strip())):
            if line.strip().startswith("- "):
                found.append({})
            if found:
                found[-1][part[1]] = part[2].strip("\"'")
    # The order of keys is nobody's matter: a list that begins with another one than `from` is read as well.
    return [one for one in found if "from" in one]


def objections(old: Sequence[Period], new: Sequence[Period], today: str) -> list[str]:
    """Why the periods cannot become the new ones. What has not begun may still change."""
    found = []
    begun = [one for one in old if one["from"] <= today]
    for one in begun:
        if one not in new:
            now = next((other for other in new if other["from"] == one["from"]), None)
            how = f"would become {said(now)}" if now else "would be gone"
            found.append(
                f"The period {said(one)} of loki_schema is in force and {how}, so Loki would not find what it wrote."
                " Leave it as it is, and append a period that begins tomorrow or later."
            )
    for one in new if begun else []:
        if one["from"] <= today and not any(one["from"] == other["from"] for other in begun):
            found.append(
                f"The new period {said(one)} of loki_schema would be in force at once, with data of another one in it."
                f" Let it begin after {today}."
            )
    return found


def said(period: Period) -> str:
    kept = {name: value for name, value in period.items() if name not in ("from", "prefix", "period")}
    return f"from {period['from']} ({', '.join(kept.values())})"


def before(path: Path) -> str:
    """A file as it stood before the change that is under way; "" where there was none."""
    entries = json.loads(JOURNAL.read_text("utf-8"))["entries"] if JOURNAL.exists() else []
    for entry in entries:
        if entry["path"] == str(path):
            return base64.b64decode(entry["data"]).decode("utf-8", "replace")
    return path.read_text("utf-8") if path.exists() else ""


# --- what is asked ---------------------------------------------------------------------------------------------------


def verify(release: Mapping[str, Any]) -> str:
    """What Loki itself has against its configuration; "" for nothing, and where its package comes only later."""
    if not os.access(release["binary"], os.X_OK):
        return ""
    argv = [release["binary"], f"-config.file={CONFIG}", "-config.expand-env=true", "-verify-config"]
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env={**os.environ, **secrets()}
    )
    return "" if done.returncode == 0 else f"Loki refuses its configuration: {last_lines(done.stdout)}"


def secrets() -> dict[str, str]:
    """What the unit gives to the program's environment."""
    lines = SECRETS.read_text("utf-8").splitlines() if SECRETS.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def rules_refused(url: str) -> str:
    """What Loki has against the rules it finds; "" for nothing."""
    try:
        urllib.request.build_opener().open(url, timeout=SILENCE).close()
    except urllib.error.HTTPError as error:
        with error:
            return f"Loki refuses its rules: {last_lines(error.read(PIECE).decode('utf-8', 'replace'))}"
    return ""


def last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-SHOWN:])


def attempt(release: Mapping[str, Any]) -> None:
    """Refuse what would not work, before the running Loki is touched."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    wrong = objections(periods_in(before(CONFIG)), periods_in(CONFIG.read_text("utf-8")), today)
    if wrong:
        raise Refused(" ".join(wrong))
    if release.get("sha256"):
        install(release)
    if words := verify(release):
        raise Refused(words)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("verb", choices=["try", "install", "installed", "rules"])
    parser.add_argument("url", nargs="?", help="where Loki says which rules it has", default="")
    given = parser.parse_args(arguments)
    try:
        release = json.loads(RELEASE.read_text("utf-8"))
        if given.verb == "installed":
            return 0 if installed(release) else 1
        if given.verb == "rules":
            if words := rules_refused(given.url):
                raise Refused(words)
        elif given.verb == "try":
            attempt(release)
        else:
            install(release)
            tidy(release, json.loads(before(RELEASE) or "{}"))
    except FAULTS as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
