# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Images put together without an engine: what is in them, what tells them apart, what a registry is given."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import application_image
import pytest
from application_image import Image, Layer, build, build_base
from testhosts.common import Stop

BASE = b"the base layer, unpacked"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a base layer that costs nothing."""

    def make_base(place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(gzip.compress(BASE, mtime=0))

    monkeypatch.setattr(application_image, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(application_image, "make_base", make_base)
    return tmp_path / "kept"


def parts(image: Image) -> dict[str, bytes]:
    with tarfile.open(image.archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def configuration(image: Image) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(image.configuration)
    return found


def test_the_archive_is_what_docker_load_takes() -> None:
    image = build("1.0.0")
    found = parts(image)
    [index] = json.loads(found["manifest.json"])
    assert index["RepoTags"] == ["shop:1.0.0"]
    assert found[index["Config"]] == image.configuration
    assert index["Config"] == f"{image.identity.removeprefix('sha256:')}.json"
    layers = [sha256(gzip.decompress(found[name])) for name in index["Layers"]]
    assert layers == configuration(image)["rootfs"]["diff_ids"] == [one.identity for one in image.layers]
    assert len(configuration(image)["history"]) == len(layers) == 2


def test_it_is_the_same_whenever_it_is_made(kept: Path) -> None:
    first = build("1.0.0")
    content = first.archive.read_bytes()
    for file in kept.iterdir():
        file.unlink()
    second = build("1.0.0")
    assert (second.identity, second.manifest, second.archive) == (first.identity, first.manifest, first.archive)
    assert second.archive.read_bytes() == content


def test_each_release_and_behaviour_is_another_image_of_the_same_layers() -> None:
    images = [build("1.0.0"), build("1.0.1"), build("1.0.0", "crashes")]
    assert len({one.identity for one in images}) == len({one.archive for one in images}) == 3
    assert len({tuple(layer.identity for layer in one.layers) for one in images}) == 1
    assert configuration(images[2])["config"]["Env"][-2:] == ["RELEASE=1.0.0", "BEHAVIOUR=crashes"]
    assert configuration(images[1])["config"]["Labels"]["org.opencontainers.image.version"] == "1.0.1"


def test_the_base_is_an_image_without_a_release() -> None:
    base, image = build_base(), build("1.0.0")
    assert (base.name, base.layers) == ("shop-base:debian13", image.layers[:1])
    config = configuration(base)["config"]
    assert (config["User"], "Labels" in config) == ("10001:10001", False)
    assert config["Env"] == configuration(image)["config"]["Env"][:-2]


def test_a_change_of_the_application_changes_its_layer(tmp_path: Path) -> None:
    for part in application_image.PARTS:
        place = tmp_path / "source" / part
        if "." in part:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("main")
        else:
            (place / "deep").mkdir(parents=True)
            (place / "deep" / "file").write_text(part)
    (tmp_path / "source" / "README.md").write_text("not packed")
    before = application_image.packed_tree(tmp_path / "source")
    with tarfile.open(fileobj=io.BytesIO(before)) as tar:
        entries = {member.name: member for member in tar}
    assert "application/source/deep/file" in entries
    assert "application/README.md" not in entries
    assert {(one.uid, one.gid, one.mtime) for one in entries.values()} == {(0, 0, 0)}
    assert {oct(one.mode) for one in entries.values() if one.isfile()} == {"0o644"}
    (tmp_path / "source" / "main.js").touch()
    assert application_image.packed_tree(tmp_path / "source") == before
    (tmp_path / "source" / "main.js").write_text("other")
    assert application_image.packed_tree(tmp_path / "source") != before


@pytest.mark.parametrize("release", ["", "a b", "-1", "1.0/2", "x" * 129])
def test_a_release_that_is_no_tag_is_refused(release: str) -> None:
    with pytest.raises(Stop, match="cannot be a release's name"):
        build(release)


def test_an_unknown_behaviour_is_refused() -> None:
    with pytest.raises(Stop, match="'bad' is no behaviour; there are good, never_ready"):
        build("1.0.0", "bad")


def test_what_is_not_whole_is_not_there(tmp_path: Path) -> None:
    def fail() -> None:
        with application_image.in_its_place(tmp_path / "folder" / "file") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list((tmp_path / "folder").iterdir()) == []


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert application_image.main(["1.0.0", "crashes"]) == 0
    assert capsys.readouterr().out == f"{build('1.0.0', 'crashes').archive}\n"
    assert application_image.main(["--base"]) == 0
    assert capsys.readouterr().out == f"{build_base().archive}\n"
    assert application_image.main(["a b"]) == 1
    for words in ([], ["1.0.0", "--base"]):
        with pytest.raises(SystemExit):
            application_image.main(words)


@dataclass
class Registry:
    """As much of a registry as a push needs; it forgets nothing and judges digests."""

    address: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    logins: set[str | None] = field(default_factory=set)


@contextmanager
def registry() -> Iterator[Registry]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._answer(202, "/v2/shop/blobs/uploads/1?state=x")

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            place, _query, digest = self.path.partition("&digest=")
            if digest:
                found.blobs[digest] = body
            else:
                assert self.headers["Content-Type"] == application_image.MANIFEST_TYPE
                found.manifests[place] = body
            self._answer(201)

        def _answer(self, status: int, location: str = "") -> None:
            found.logins.add(self.headers["Authorization"])
            self.send_response(status)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Registry(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def test_a_registry_gets_all_of_an_image() -> None:
    image = build("1.0.0")
    with registry() as found:
        digest = application_image.push(image, found.address, {"Authorization": "Basic x"})
    assert all(sha256(content) == name for name, content in found.blobs.items())
    [manifest] = found.manifests.values()
    assert list(found.manifests) == ["/v2/shop/manifests/1.0.0"]
    assert digest == sha256(manifest)
    told = json.loads(manifest)
    assert {one["digest"]: one["size"] for one in [told["config"], *told["layers"]]} == {
        name: len(content) for name, content in found.blobs.items()
    }
    assert told["config"]["digest"] == image.identity
    assert found.logins == {"Basic x"}


def test_a_layer_is_known_by_what_is_packed_and_by_what_is_not(tmp_path: Path) -> None:
    layer: Layer = application_image.base_layer()
    assert layer.identity == sha256(BASE)
    assert layer.digest == sha256(layer.packed.read_bytes()) != layer.identity
