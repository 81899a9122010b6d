# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs of others that judge this project: Debian packages and npm packages, installed where they are missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NPM = ROOT / ".cache" / "npm"
INSTALL_SECONDS = 600


def needs_apt(package: str, *programs: str) -> str:
    """The path of the first of these programs that is there (default: the one named as its Debian package).

    Where there is none, root on Debian installs the package; elsewhere the test is skipped and names what is missing.
    """
    names = programs or (package,)
    if not any(map(shutil.which, names)):
        if os.geteuid() != 0 or platform.freedesktop_os_release().get("ID") != "debian":
            pytest.skip(f"this machine lacks {package} (apt install {package}; root on Debian installs it here)")
        apt_get("update")
        apt_get("install", "--yes", "--no-install-recommends", package)
    return next(filter(None, map(shutil.which, names)))


def apt_get(*words: str) -> None:
    """Run apt-get, which waits for another one to end."""
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *words]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(command, environment=environment)


def npm_installed(folder: Path) -> Path:
    """Where the packages that a folder's package-lock.json names are installed; skips the test without Node.js and npm.

    Their install scripts do not run. What is there already is kept while the lock file stays the same.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"this machine lacks {program} (Debian: apt install {program.replace('node', 'nodejs')})")
    installed = NPM / folder.name
    lock = (folder / "package-lock.json").read_bytes()
    done = installed / "installed-package-lock.json"
    if not done.is_file() or done.read_bytes() != lock:
        installed.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(folder / name, installed / name)
        run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"],
            folder=installed,
            environment=dict(os.environ),
        )
        done.write_bytes(lock)
    return installed


def run(command: list[str], *, environment: dict[str, str], folder: Path = ROOT) -> None:
    """Run a program that has to succeed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}"
