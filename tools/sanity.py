# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run ``ansible-test sanity`` on a copy of the checkout; arguments are handed on (``--test pylint``).

ansible-test wants a collection below a folder named ansible_collections that is no symbolic link, and virtual
environments of its own below the home folder. Both lie in .cache/sanity, and the environments are kept between runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "sanity"
COPY = CACHE / "ansible_collections" / "fushuma" / "production"
HOME = CACHE / "home"

# ansible-test downloads a script of this role from a server of its own; Python brings all that it needs. The bundled
# pip is installed by another process, because ensurepip makes its own process forget where packages are found.
BOOTSTRAP = """\
import runpy, subprocess, sys
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
sys.argv[1:] = ["install", *(word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel"))]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
# ansible-test passes no variables on, so what pip has to know has to be a file in the home folder.
PIP_FILES = (".config/pip", ".pip", ".cache/pip")


def bootstrap_name(requirements: str) -> str:
    """The name under which ansible-test looks for its pip bootstrap, from the source of its python_requirements."""
    version = re.search(r"""\bpip='([0-9.]+)'""", requirements)
    if version is None:
        raise SystemExit("This ansible-test installs pip in a way that tools/sanity.py does not know.")
    return f"get_pip_{version[1].replace('.', '_')}.py"


def tests_left_out(output: str) -> list[str]:
    """The warnings by which ansible-test says that a test did not run; it would call the run a success."""
    warnings = re.findall(r"^WARNING: ((?:Skipping|Required program) .*)$", output, re.MULTILINE)
    return list(dict.fromkeys(warnings))


def errors_of(output: str) -> list[str]:
    """What ansible-test found wrong; installations by pip stand between these lines in its output."""
    return re.findall(r"^ERROR: .*$", output, re.MULTILINE)


def make_home() -> None:
    """A home folder with the bootstrap script and the user's settings of pip."""
    import ansible_test

    source = Path(ansible_test.__file__).parent / "_internal" / "python_requirements.py"
    script = HOME / ".ansible" / "test" / "cache" / bootstrap_name(source.read_text(encoding="utf-8"))
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(BOOTSTRAP, encoding="utf-8")
    for name in PIP_FILES:
        link, target = HOME / name, Path.home() / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not link.is_symlink():
            link.symlink_to(target)


def is_shipped(name: str) -> bool:
    """Whether a file is part of the collection: what tests and builds it follows pytest's and ruff's ways."""
    return name == "tests/config.yml" or name.split("/")[0] not in ("molecule", "tests", "tools")


def make_copy() -> None:
    """The collection's files that git knows or would add, as a repository of their own."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    shutil.rmtree(COPY, ignore_errors=True)
    for name in filter(is_shipped, filter(None, listed.stdout.split("\0"))):
        source, target = ROOT / name, COPY / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    subprocess.run(["git", "init", "--quiet"], cwd=COPY, check=True)
    subprocess.run(["git", "add", "--all"], cwd=COPY, check=True)


def main(arguments: list[str]) -> int:
    """The exit code of ansible-test, or 1 where a test was left out."""
    make_home()
    make_copy()
    programs = Path(sys.executable).parent
    environment = {**os.environ, "HOME": str(HOME), "PATH": f"{programs}:{os.environ['PATH']}"}
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = ["ansible-test", "sanity", "--color", "no", "--python", version, *arguments]
    lines = []
    with subprocess.Popen(
        command, cwd=COPY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    output = "".join(lines)
    left_out = [f"NOT RUN: {warning}" for warning in tests_left_out(output)]
    print("\n".join(["", *errors_of(output), *left_out]))
    return process.returncode or int(bool(left_out))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
