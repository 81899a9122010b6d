# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One recipe, two ways to cook it: both have to use all of it, and its digest has to notice every change."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from testhosts import image
from testhosts.image import Recipe

RECIPE = Recipe(packages=("systemd", "sudo"), init="init\n", setup="setup\n", sources="Suites: SUITE SUITE-updates\n")


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECIPE, packages=("systemd",)),
        replace(RECIPE, init="other\n"),
        replace(RECIPE, setup="other\n"),
        replace(RECIPE, sources="other\n"),
        replace(RECIPE, instructions=("ENV a=b",)),
    ],
)
def test_digest_notices_every_change(changed: Recipe) -> None:
    assert changed.digest() != RECIPE.digest()


def test_digest_is_stable() -> None:
    assert replace(RECIPE).digest() == RECIPE.digest() == "d2d5a927410d"
    assert image.tag_of("12", RECIPE) == "fushuma-testhost:debian12-d2d5a927410d"


@pytest.mark.parametrize(("release", "suite"), sorted(image.SUITES.items()))
def test_both_ways_use_the_whole_recipe(release: str, suite: str) -> None:
    with tarfile.open(fileobj=image.build_context(RECIPE, release)) as tar:
        texts = {member.name: tar.extractfile(member).read().decode() for member in tar}  # type: ignore[union-attr]
    dockerfile = texts.pop("Dockerfile")
    command = image.mmdebstrap_command(RECIPE, suite, Path("/new folder"))

    assert texts == RECIPE.files(suite)
    assert texts["debian.sources"] == f"Suites: {suite} {suite}-updates\n"
    assert f"FROM debian:{suite}-slim\n" in dockerfile
    assert " systemd sudo " in dockerfile
    assert "--include=systemd,sudo" in command
    for name in texts:
        assert f" {name} " in dockerfile
        assert f"--customize-hook=upload '/new folder/{name}' {image.INSIDE}/{name}" in command
    run_setup = f"sh {image.INSIDE}/setup {image.INSIDE}"
    assert run_setup in dockerfile
    assert f'--customize-hook=chroot "$1" {run_setup}' in command
    assert dockerfile.endswith("\n".join(RECIPE.instructions) + "\n")
    assert command[-3:] == [suite, "/new folder/root.tar", "/new folder/debian.sources"]


def test_dockerfile_needs_no_buildkit() -> None:
    assert "--" not in RECIPE.dockerfile("debian").replace("--no-install-recommends", "")


def test_the_recipe_in_the_repository() -> None:
    recipe = image.read_recipe()
    needed = {"systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-apt", "sudo", "cron"}
    assert needed - set(recipe.packages) == set()
    assert image.INIT in recipe.setup
    sources = recipe.files("trixie")["debian.sources"]
    assert "Suites: trixie trixie-updates\n" in sources
    assert "Suites: trixie-security\n" in sources
