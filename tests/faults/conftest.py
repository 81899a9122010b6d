# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts that serve a site, and two settings between which nothing of nginx stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hosts_support import RELEASES, Edge, free_port, on_each

Settings = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def settings(folder: Path) -> Settings:
    """``a`` and ``b``: localhost with another content and another header, and a site that the other has not."""
    return {letter: one_setting(folder / letter, letter) for letter in "ab"}


def one_setting(content: Path, letter: str) -> dict[str, Any]:
    (content / "only").mkdir(parents=True)
    (content / "index.html").write_text(f"<!doctype html><title>{letter}</title><p>{letter * 2000}</p>", "utf-8")
    (content / "only" / f"{letter}.css").write_text("p { margin: 0 }\n", "utf-8")
    common = {"certificate": {"source": "selfsigned"}, "content": str(content)}
    return {
        "nginx_sites": [
            {"name": "localhost", **common, "headers": {"X-Setting": letter}},
            {"name": f"only-{letter}.example", **common},
        ]
    }


@pytest.fixture(scope="session")
def whole() -> Callable[[str], bool]:
    """Whether a page is that of one of the settings, from its beginning to its end."""
    return lambda body: any(f"<title>{letter}</title><p>{letter * 2000}</p>" in body for letter in "ab")


@pytest.fixture(scope="session")
def booted_edges(boot: Callable[..., Any], folder: Path, settings: Settings) -> list[Edge]:
    """A host of each release that has the certificates of both settings, which are no part of the change."""
    edges = [Edge(boot(f"fault{release}", release, publish={free_port(): 443}), folder) for release in RELEASES]
    on_each(edges, lambda edge: edge.play(settings["b"]).ok())
    return edges


@pytest.fixture
def edges(booted_edges: list[Edge], settings: Settings) -> list[Edge]:
    """A host of each release with setting ``a`` in force."""
    on_each(booted_edges, lambda edge: edge.play(settings["a"]).ok())
    return booted_edges
