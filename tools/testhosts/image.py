# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The images of the hosts: one recipe, two ways to cook it (Docker's base image, or mmdebstrap)."""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import shutil
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]

from .common import HOSTS, LACKING, Stop, locked, run, say, tail
from .engine import connect, install

SUITES = {"12": "bookworm", "13": "trixie"}
"""Debian's releases and their code names."""

REPOSITORY = "fushuma-testhost"
RECIPE_FOLDER = Path(__file__).parent / "recipe"
INIT = "/usr/local/sbin/testhost-init"
INSIDE = "/usr/local/share/testhost"
"""Where the recipe's files lie inside the new system while it is set up."""

REGISTRY_SECONDS = 5.0
BUILD_SECONDS = 600.0


@dataclass(frozen=True)
class Recipe:
    """All that decides what is in an image, besides the release and the day."""

    packages: tuple[str, ...]
    init: str  # becomes PID 1
    setup: str  # run inside the new system when the packages are in
    sources: str  # of apt, with SUITE for the release's code name
    instructions: tuple[str, ...] = ("ENV container=docker", f'CMD ["{INIT}"]')

    def digest(self) -> str:
        """Twelve hex digits that change with the recipe."""
        parts = (" ".join(self.packages), self.init, self.setup, self.sources, *self.instructions)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    def files(self, suite: str) -> dict[str, str]:
        """What the new system needs to see while it is set up: name and text."""
        return {"init": self.init, "setup": self.setup, "debian.sources": self.sources.replace("SUITE", suite)}

    def dockerfile(self, base: str) -> str:
        """The recipe for Docker's own builder, in words that the builder before BuildKit knows, too."""
        lines = (
            f"FROM {base}",
            f"COPY init setup debian.sources {INSIDE}/",
            "RUN export DEBIAN_FRONTEND=noninteractive && apt-get update -qq"
            f" && apt-get install -y -qq --no-install-recommends {' '.join(self.packages)}"
            f" && sh {INSIDE}/setup {INSIDE} && rm -r {INSIDE}",
            *self.instructions,
        )
        return "\n".join(lines) + "\n"


def read_recipe(folder: Path = RECIPE_FOLDER) -> Recipe:
    """The recipe as it lies in the repository."""
    return Recipe(
        packages=tuple((folder / "packages").read_text().split()),
        init=(folder / "init").read_text(),
        setup=(folder / "setup").read_text(),
        sources=(folder / "debian.sources").read_text(),
    )


def tag_of(release: str, recipe: Recipe) -> str:
    """``fushuma-testhost:debian12-0123456789ab``."""
    return f"{REPOSITORY}:debian{release}-{recipe.digest()}"


def base_of(release: str) -> str:
    """Docker's name for the release's small base image."""
    return f"debian:{SUITES[release]}-slim"


def ensure(release: str) -> str:
    """The tag of the release's image, which is built if it is not there."""
    client = connect(BUILD_SECONDS)
    recipe = read_recipe()
    tag = tag_of(release, recipe)
    if exists(client, tag):
        return tag
    with locked(f"image-{release}"):
        if exists(client, tag):
            return tag
        began = time.monotonic()
        if has_base(client, base_of(release)):
            say(f"image: building {tag} from {base_of(release)}")
            build_from_base(client, recipe, release, tag)
        else:
            say(f"image: building {tag} with mmdebstrap (half a minute; no registry gives {base_of(release)})")
            build_with_mmdebstrap(client, recipe, SUITES[release], tag)
        say(f"image: {tag} built in {time.monotonic() - began:.0f} s")
    return tag


def exists(client: Any, tag: str) -> bool:
    """Whether the engine holds this image."""
    try:
        client.images.get(tag)
    except docker.errors.ImageNotFound:
        return False
    return True


def has_base(client: Any, base: str) -> bool:
    """Whether the base image is there, or could be pulled; the question to the registry has a short time limit."""
    if exists(client, base):
        return True
    impatient = docker.from_env(timeout=REGISTRY_SECONDS)
    try:
        impatient.images.get_registry_data(base)
        say(f"image: pulling {base}")
        client.images.pull(base)
    except (docker.errors.DockerException, OSError):  # a time-out of the HTTP library is an OSError
        return False
    return True


def build_from_base(client: Any, recipe: Recipe, release: str, tag: str) -> None:
    """Let Docker build the image from a Debian base image."""
    context = build_context(recipe, release)
    try:
        client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True)
    except docker.errors.BuildError as error:
        log = "".join(part.get("stream", "") for part in error.build_log)
        raise Stop(f"Docker could not build {tag}: {error.msg}\n{tail(log)}") from error


def build_context(recipe: Recipe, release: str) -> io.BytesIO:
    """The tar archive that Docker's builder gets."""
    files = {"Dockerfile": recipe.dockerfile(base_of(release)), **recipe.files(SUITES[release])}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    archive.seek(0)
    return archive


def mmdebstrap_command(recipe: Recipe, suite: str, folder: Path) -> list[str]:
    """The argv that writes ``folder/root.tar``; the recipe's files lie in ``folder``."""
    uploads = [f"upload {shlex.quote(str(folder / name))} {INSIDE}/{name}" for name in recipe.files(suite)]
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(recipe.packages)}",
        f'--customize-hook=mkdir "$1{INSIDE}"',
        *(f"--customize-hook={upload}" for upload in uploads),
        f'--customize-hook=chroot "$1" sh {INSIDE}/setup {INSIDE}',
        f'--customize-hook=rm -r "$1{INSIDE}"',
        suite,
        str(folder / "root.tar"),
        str(folder / "debian.sources"),
    ]


def build_with_mmdebstrap(client: Any, recipe: Recipe, suite: str, tag: str) -> None:
    """Make the image from Debian's packages alone, and give it to the engine."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Stop(
            f"The engine has no debian:{suite}-slim and cannot pull it; to build an image without a registry run this "
            "as root on Debian.",
            LACKING,
        )
    if shutil.which("mmdebstrap") is None:
        with locked("engine"):
            install(["mmdebstrap", "debian-archive-keyring"])
    HOSTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="image-", dir=HOSTS) as name:
        folder = Path(name)
        for file, text in recipe.files(suite).items():
            (folder / file).write_text(text)
        run(mmdebstrap_command(recipe, suite, folder), HOSTS / f"image-{suite}.log")
        repository, _colon, name_in_it = tag.partition(":")
        client.api.import_image_from_file(
            str(folder / "root.tar"), repository=repository, tag=name_in_it, changes=list(recipe.instructions)
        )
    if not exists(client, tag):
        raise Stop(f"The engine did not take {tag} from mmdebstrap's archive.")
