# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program that installs Loki on the host and guards the periods of its schema."""

from __future__ import annotations

import datetime
import hashlib
import http.server
import io
import json
import os
import subprocess
import tarfile
import threading
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.fushuma.production.plugins.module_utils import journal, loki
from ansible_collections.fushuma.production.plugins.plugin_utils import loki_model, specs
from hypothesis import given
from hypothesis import strategies as st

PROGRAM = '#!/bin/sh\n[ -z "$REFUSES" ] || { echo "line one"; echo "bad $LOKI_S3_SECRET_KEY"; exit 1; }\n'
TODAY = datetime.datetime.now(datetime.UTC).date()


def day(distance: int) -> str:
    return (TODAY + datetime.timedelta(days=distance)).isoformat()


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's folders below a temporary one."""
    for name, path in {"RELEASE": "release.json", "CONFIG": "config.yml", "SECRETS": "environment"}.items():
        monkeypatch.setattr(loki, name, tmp_path / path)
    monkeypatch.setattr(loki, "JOURNAL", tmp_path / "loki.journal")
    return tmp_path


def configured(host: Path, *periods: dict[str, str]) -> str:
    """config.yml as the role writes it."""
    options = specs.role_options("loki")
    settings = specs.filled(options, {"loki_schema": list(periods), "loki_s3": S3})
    text = yaml.safe_dump(loki_model.config(settings), sort_keys=False)
    (host / "config.yml").write_text(text, "utf-8")
    return text


S3 = {"url": "https://s3.fushuma.com", "bucket": "logs", "access_key": "AK", "secret_key": "canary"}


def released(host: Path, archive: Path | None = None, version: str = "1.0.0", **more: str) -> dict[str, Any]:
    if archive is None:
        release = {"version": version, "binary": str(host / "bin/loki")}
    else:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        binary = str(host / "opt" / f"{version}-{digest[:12]}" / "loki")
        release = {"version": version, "binary": binary, "source": str(archive), "sha256": digest}
    (host / "release.json").write_text(json.dumps(release | more), "utf-8")
    return release | more


def changing(host: Path, *paths: str) -> None:
    """Have a change under way, as the engine notes it, of what stands there now."""
    store = journal.Store("loki", host)
    store.open(journal.Before([journal.snapshot(str(host / path)) for path in paths]))


def packed(host: Path, form: str, name: str = "loki-linux-amd64") -> Path:
    path = host / f"archive.{form}"
    if form == "bare":
        path.write_text(PROGRAM, "utf-8")
    elif form == "zip":
        with zipfile.ZipFile(path, "w") as out:
            out.writestr(name, PROGRAM)
            out.writestr("LICENSE", "x")
    elif form == "deb":
        tree = host / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        control = "Package: loki\nVersion: 1\nArchitecture: all\nMaintainer: nobody <root@localhost>\nDescription: x\n"
        (tree / "DEBIAN/control").write_text(control, "utf-8")
        (tree / "usr/bin").mkdir(parents=True)
        (tree / "usr/bin/loki").write_text(PROGRAM, "utf-8")
        subprocess.run(["dpkg-deb", "--build", str(tree), str(path)], check=True, capture_output=True)
    else:
        with tarfile.open(path, "w:gz") as tar:
            member = tarfile.TarInfo(f"loki-1.0/{name}")
            member.size = len(PROGRAM)
            tar.addfile(member, io.BytesIO(PROGRAM.encode()))
    return path


# --- the program -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["bare", "zip", "deb", "tar.gz"])
def test_a_program_out_of_each_form_of_archive(host: Path, form: str) -> None:
    release = released(host, packed(host, form))
    assert loki.main(["installed"]) == 1
    assert loki.main(["install"]) == 0
    assert loki.main(["installed"]) == 0
    binary = Path(release["binary"])
    assert (binary.read_text("utf-8"), binary.stat().st_mode & 0o777) == (PROGRAM, 0o755)
    assert [path.name for path in binary.parent.iterdir()] == ["loki"]


def test_others_may_run_it_whatever_roots_umask_is(host: Path) -> None:
    binary = Path(released(host, packed(host, "bare"))["binary"])
    binary.parent.parent.mkdir(mode=0o750)
    before = os.umask(0o077)
    try:
        assert loki.main(["install"]) == 0
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (binary.parent.parent, binary.parent, binary)] == [0o755] * 3


def test_an_archive_is_fetched(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(host, "zip")

    class Opener:
        def open(self, source: str, timeout: int) -> Any:
            assert (source, timeout) == ("https://packages.fushuma.com/loki.zip", loki.SILENCE)
            return archive.open("rb")

    monkeypatch.setattr(urllib.request, "build_opener", Opener)
    released(host, archive, source="https://packages.fushuma.com/loki.zip")
    assert loki.main(["install"]) == 0
    assert loki.main(["installed"]) == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"sha256": "0" * 64}, "so it is not used"),
        ({"source": "/nowhere/loki.zip"}, "cannot be read"),
        ({"source": "nonsense://x"}, "cannot be read"),
    ],
)
def test_an_archive_that_is_not_the_one(
    host: Path, capsys: pytest.CaptureFixture[str], more: dict[str, str], words: str
) -> None:
    release = released(host, packed(host, "zip"), **more)
    assert loki.main(["install"]) == 1
    assert words in capsys.readouterr().err
    assert not Path(release["binary"]).exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"plain text", "neither a zip"),
        (b"PK\x03\x04 broken", "zip"),
        (b"!<arch>\nbroken", "dpkg-deb"),
        (b"\x1f\x8bx", ""),
    ],
)
def test_an_archive_that_is_none(host: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str) -> None:
    (host / "archive").write_bytes(content)
    released(host, host / "archive")
    assert loki.main(["install"]) == 1
    assert words in capsys.readouterr().err


def test_an_archive_without_the_program(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    released(host, packed(host, "tar.gz", "promtail"))
    assert loki.main(["install"]) == 1
    assert "has 0 files that are called loki" in capsys.readouterr().err


def test_the_release_of_before_stays_and_older_ones_go(host: Path) -> None:
    archive = packed(host, "bare")
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        if (host / "release.json").exists():
            changing(host, "release.json")
        released(host, archive, version)
        assert loki.main(["install"]) == 0
    assert sorted(path.name[:5] for path in (host / "opt").iterdir()) == ["2.0.0", "3.0.0"]
    # Where no change is under way, the present one is the one of before.
    (host / "loki.journal").unlink()
    assert loki.main(["install"]) == 0
    assert [path.name[:5] for path in (host / "opt").iterdir()] == ["3.0.0"]


def package(monkeypatch: pytest.MonkeyPatch, host: Path, has: str = "", code: int = 0) -> list[list[str]]:
    """A host whose dpkg knows a version of Loki; apt-get gives the one that is asked for, or fails."""
    asked: list[list[str]] = []
    state = {"version": has}

    def run(argv: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        if argv[0] == "dpkg-query":
            found = f"installed {state['version']}" if state["version"] else ""
            return subprocess.CompletedProcess(argv, 0 if found else 1, found, "")
        asked.append(argv)
        if not code:
            state["version"] = argv[-1].partition("=")[2]
            (host / "bin").mkdir(exist_ok=True)
            (host / "bin/loki").write_text(PROGRAM, "utf-8")
            (host / "bin/loki").chmod(0o755)
        return subprocess.CompletedProcess(argv, code, "E: Version '9' was not found\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    if has:
        (host / "bin").mkdir()
        (host / "bin/loki").write_text(PROGRAM, "utf-8")
        (host / "bin/loki").chmod(0o755)
    return asked


def test_a_package_in_the_version_that_is_wanted(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = package(monkeypatch, host, has="2.0.0")
    released(host)
    assert loki.main(["installed"]) == 1
    assert loki.main(["install"]) == 0
    assert (len(asked), asked[0][-1]) == (1, "loki=1.0.0")
    assert {"--allow-downgrades", "Dpkg::Options::=--force-confold"} <= set(asked[0])
    assert loki.main(["install"]) == 0
    assert len(asked) == 1


def test_a_package_that_there_is_not(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package(monkeypatch, host, code=100)
    released(host)
    assert loki.main(["install"]) == 1
    assert "apt-get cannot install loki=1.0.0: E: Version '9' was not found" in capsys.readouterr().err
    assert loki.package_version() == ""


@pytest.mark.parametrize(("status", "code", "words"), [(200, 0, ""), (400, 1, "Loki refuses its rules: parse error\n")])
def test_rules_that_loki_does_not_understand(
    host: Path, capsys: pytest.CaptureFixture[str], status: int, code: int, words: str
) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"parse error")

        def log_message(self, *_words: Any) -> None:
            pass

    released(host)
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request).start()
        assert loki.main(["rules", f"http://127.0.0.1:{server.server_address[1]}/"]) == code
    assert capsys.readouterr().err == words


# --- what is tried before the running Loki is touched ----------------------------------------------------------------


def test_what_loki_refuses_is_said_with_its_words(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(host, {"from": "2024-01-01"})
    (host / "environment").write_text("# a comment\nREFUSES=1\nLOKI_S3_SECRET_KEY=a=b\n", "utf-8")
    released(host, packed(host, "bare"))
    assert loki.main(["try"]) == 1
    assert capsys.readouterr().err == "Loki refuses its configuration: line one\nbad a=b\n"
    (host / "environment").unlink()
    assert loki.main(["try"]) == 0


def test_a_package_that_comes_later_is_not_asked(host: Path) -> None:
    configured(host, {"from": "2024-01-01"})
    released(host)
    assert loki.main(["try"]) == 0


ONE, TWO = {"from": "2024-01-01"}, {"from": "2025-01-01", "storage": "s3"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ([ONE], [ONE], ""),
        ([ONE, TWO], [ONE, TWO, {"from": day(1)}], ""),
        ([ONE, {"from": day(1)}], [ONE, {"from": day(2), "storage": "s3"}], ""),
        ([ONE, {"from": day(1)}], [ONE], ""),
        ([], [ONE, TWO], ""),
        ([ONE], [TWO], "from 2024-01-01 (tsdb, filesystem, v13) of loki_schema is in force and would be gone"),
        ([ONE], [{**ONE, "storage": "s3"}], "would become from 2024-01-01 (tsdb, s3, v13)"),
        ([ONE], [ONE, TWO], "would be in force at once"),
        ([ONE], [ONE, {"from": day(0)}], f"Let it begin after {day(0)}"),
        ([ONE, {"from": day(0)}], [ONE], "would be gone"),
    ],
)
def test_periods(
    host: Path,
    capsys: pytest.CaptureFixture[str],
    old: list[dict[str, str]],
    new: list[dict[str, str]],
    words: str,
) -> None:
    released(host)
    if old:
        configured(host, *old)
    changing(host, "config.yml")
    configured(host, *new)
    assert loki.main(["try"]) == (1 if words else 0)
    assert words in capsys.readouterr().err


def test_periods_of_a_configuration_that_others_wrote() -> None:
    text = """
auth_enabled: false
schema_config:
    configs:
    # the first one
    - object_store: filesystem
      from: 2020-10-24
      store: "tsdb"
      schema: v13
      index:
        prefix: index_
        period: 24h
    - store: tsdb
common:
  ring: {kvstore: {store: inmemory}}
"""
    assert loki.periods_in(text) == [
        {
            "from": "2020-10-24",
            "store": "tsdb",
            "object_store": "filesystem",
            "schema": "v13",
            "prefix": "index_",
            "period": "24h",
        }
    ]
    assert loki.periods_in("schema_config: {}\n  store: tsdb\n") == []


DAYS = st.integers(min_value=-3000, max_value=3000).map(day)
KINDS = st.fixed_dictionaries(
    {"storage": st.sampled_from(["filesystem", "s3"]), "version": st.sampled_from(["v12", "v13"])}
)
SCHEMAS = st.dictionaries(DAYS, KINDS, min_size=1, max_size=5).map(
    lambda found: [{"from": one, **found[one]} for one in sorted(found)]
)


def written(periods: list[dict[str, str]]) -> list[loki.Period]:
    settings = specs.filled(specs.role_options("loki"), {"loki_schema": periods, "loki_s3": S3})
    return loki.periods_in(yaml.safe_dump(loki_model.config(settings)))


@given(SCHEMAS)
def test_what_is_written_is_read_again(periods: list[dict[str, str]]) -> None:
    found = written(periods)
    assert [(one["from"], one["object_store"], one["schema"]) for one in found] == [
        (one["from"], one["storage"], one["version"]) for one in periods
    ]
    assert loki.objections(found, found, day(0)) == []


@given(SCHEMAS, SCHEMAS)
def test_on_each_day_that_is_over_data_is_found_as_it_was_written(
    old: list[dict[str, str]], new: list[dict[str, str]]
) -> None:
    """What passes changes the period of no day up to today, for whoever has had one in force."""
    before, after = written(old), written(new)
    if loki.objections(before, after, day(0)):
        return

    def of(day_: str, periods: list[loki.Period]) -> loki.Period | None:
        return next((one for one in reversed(periods) if one["from"] <= day_), None)

    days = {day(0), *(one["from"] for one in (*before, *after) if one["from"] <= day(0))}
    begun = [one for one in days if of(one, before)]
    assert [of(one, after) for one in begun] == [of(one, before) for one in begun]


@given(SCHEMAS)
def test_a_period_can_always_be_appended(periods: list[dict[str, str]]) -> None:
    later = {"from": day(4000), "storage": "s3", "version": "v13"}
    assert loki.objections(written(periods), written([*periods, later]), day(0)) == []
