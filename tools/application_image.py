# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Images of the application in tools/demo_application, as archives for `docker load`. No registry is asked.

The base layer is made once of Debian's packages, in a container of the test hosts' image, and holds no more than Node
and the libraries: no shell, no package manager. A release is that layer, a small one with the application, and its
name in the image's configuration; making one takes a second and no engine.

    python tools/application_image.py 1.0.0                  # prints where the archive lies
    python tools/application_image.py 1.1.0 never_ready      # one that misbehaves
    python tools/application_image.py --base                 # what the Dockerfile builds on
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import platform
import re
import ssl
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin

import docker  # type: ignore[import-untyped]
from testhosts import engine, image
from testhosts.common import CACHE, ROOT, Stop, locked, say, tail

SOURCE = ROOT / "tools" / "demo_application"
KEPT = CACHE / "application"
NAME, BASE_NAME = "shop", "shop-base:debian13"
BEHAVIOURS = ("good", "never_ready", "broken_page", "broken_migration", "crashes")
RELEASE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")  # what may be an image's tag

DEBIAN = "13"
PACKAGES = ("base-files", "node-express", "node-mysql", "node-redis", "nodejs")
UID = 10001
PARTS = ("main.js", "migrations", "public", "source")
BUILD_SECONDS = 600.0

# The packages are only unpacked. The larger half of what node-express and node-redis depend on are tools of developers.
SCRIPT = r"""
set -eu
mkdir -p /build/lists/partial /build/archives/partial /build/root/uploads
cd /build
apt="apt-get -qq -y -o Dir::State::status=/dev/null -o Dir::Cache::archives=/build/archives
  -o APT::Sandbox::User=root -o Debug::NoLocking=1"
$apt update
$apt install --download-only --no-install-recommends "$@"
dpkg-deb --extract archives/base-files_*.deb root  # brings the links from /lib to /usr/lib
for package in archives/*.deb; do dpkg-deb --extract "$package" root; done
cd root
rm -rf boot home media mnt opt srv var usr/games usr/include usr/lib/node_modules usr/local usr/sbin usr/src \
  usr/lib/*/gconv usr/share/[!nz]*
cd usr/share/nodejs
rm -rf @babel @types babel* caniuse-lite core-js* corepack electron-to-chromium es-abstract handlebars istanbul* \
  lodash* neo-async nyc qs/dist regenerate-unicode-properties
cd ../../..
find usr/bin -mindepth 1 ! -name node -delete
mkdir -p tmp var/tmp
chmod 1777 tmp var/tmp
chown $UID:$UID uploads
printf 'root:x:0:0:root:/:/nonexistent\nshop:x:%s:%s:shop:/:/nonexistent\n' $UID $UID > etc/passwd
printf 'root:x:0:\nshop:x:%s:\n' $UID > etc/group
tar --create --sort=name --numeric-owner --mtime=@0 . | gzip --no-name > /build/base.tar.gz
"""
CONFIGURATION: Mapping[str, Any] = {
    "Cmd": ["web"],
    "Entrypoint": ["/usr/bin/node", "/application/main.js"],
    "Env": ["NODE_ENV=production", "PATH=/usr/bin"],
    "ExposedPorts": {"3000/tcp": {}},
    "User": f"{UID}:{UID}",
    "WorkingDir": "/application",
}
CREATED = "2026-01-01T00:00:00Z"  # always, so that the same parts make the same image

CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Layer:
    """A layer, packed. ``identity`` is the digest of what is packed, which images are made of."""

    packed: Path
    identity: str

    @property
    def digest(self) -> str:
        """The digest under which a registry has it."""
        return digest_of(self.packed.read_bytes())


@dataclass(frozen=True)
class Image:
    """An image as the engine and a registry know it. ``archive`` is for `docker load`."""

    name: str  # shop:1.0.0
    archive: Path
    configuration: bytes
    layers: tuple[Layer, ...]

    @property
    def identity(self) -> str:
        """The image's id, which `docker load` gives it: sha256:..."""
        return digest_of(self.configuration)

    @property
    def manifest(self) -> bytes:
        """What a registry keeps; its digest is the image's name there: NAME@sha256:..."""
        config = {
            "mediaType": CONFIG_TYPE,
            "size": len(self.configuration),
            "digest": self.identity,
        }
        layers = [
            {"mediaType": LAYER_TYPE, "size": one.packed.stat().st_size, "digest": one.digest} for one in self.layers
        ]
        whole = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
        return json.dumps(whole, indent=2).encode()


def build(release: str, behaviour: str = "good") -> Image:
    """The image of a release; its archive is written where it is not there already."""
    if not RELEASE.fullmatch(release):
        raise Stop(f"{release!r} cannot be a release's name: it is to be a tag of an image, like 1.0.0.")
    if behaviour not in BEHAVIOURS:
        raise Stop(f"{behaviour!r} is no behaviour; there are {', '.join(BEHAVIOURS)}.")
    layers = (base_layer(), layer_of_files("application", packed_tree(SOURCE)))
    return written(f"{NAME}:{release}", configuration(layers, release, behaviour), layers)


def build_base() -> Image:
    """The image that the Dockerfile builds on."""
    layers = (base_layer(),)
    return written(BASE_NAME, configuration(layers), layers)


def configuration(layers: Sequence[Layer], release: str = "", behaviour: str = "") -> bytes:
    """What an image says of itself; without a release that of the base image."""
    config: dict[str, Any] = dict(CONFIGURATION)
    if release:
        config["Env"] = [*config["Env"], f"RELEASE={release}", f"BEHAVIOUR={behaviour}"]
        config["Labels"] = {
            "org.opencontainers.image.title": NAME,
            "org.opencontainers.image.version": release,
            "shop.behaviour": behaviour,
        }
    whole = {
        "architecture": architecture(),
        "os": "linux",
        "created": CREATED,
        "config": config,
        "history": [{"created": CREATED, "created_by": "tools/application_image.py"} for _ in layers],
        "rootfs": {"type": "layers", "diff_ids": [layer.identity for layer in layers]},
    }
    return json.dumps(whole, sort_keys=True).encode()


def written(name: str, config: bytes, layers: tuple[Layer, ...]) -> Image:
    """An image whose archive lies in the cache."""
    short = hashlib.sha256(name.encode() + config).hexdigest()[:12]
    made = Image(name, KEPT / f"{name.replace(':', '-')}-{short}.tar", config, layers)
    if not made.archive.exists():
        with in_its_place(made.archive) as file, tarfile.open(fileobj=file, mode="w") as tar:
            names = [f"{layer.identity.removeprefix('sha256:')}.tar.gz" for layer in layers]
            config_name = f"{made.identity.removeprefix('sha256:')}.json"
            index = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": names}]).encode()
            add(tar, "manifest.json", index)
            add(tar, config_name, config)
            for layer, layer_name in zip(layers, names, strict=True):
                add(tar, layer_name, layer.packed.read_bytes())
    return made


# --- layers


def base_layer() -> Layer:
    """Node and the libraries out of Debian's packages."""
    short = hashlib.sha256("\0".join((DEBIAN, SCRIPT, *PACKAGES)).encode()).hexdigest()[:12]
    place = KEPT / f"base-{short}.tar.gz"
    if not place.exists():
        with locked("application-base"):
            if not place.exists():
                make_base(place)
    noted = place.with_suffix(".identity")  # to unpack it each time would take a second
    if not noted.exists():
        with gzip.open(place) as unpacked:
            noted.write_text(f"sha256:{hashlib.file_digest(unpacked, 'sha256').hexdigest()}")
    return Layer(place, noted.read_text())


def make_base(place: Path) -> None:
    """Unpack Debian's packages in a container that is thrown away."""
    say("application: making its base of Debian's packages (half a minute)")
    engine.start()
    tag = image.ensure(DEBIAN)
    with closing(docker.from_env(timeout=BUILD_SECONDS)) as client:
        container = client.containers.create(
            tag, ["sh", "-c", SCRIPT.replace("$UID", str(UID)), "sh", *PACKAGES], user="root", labels={"shop": "base"}
        )
        try:
            container.start()
            if container.wait()["StatusCode"]:
                raise Stop(f"The application's base was not made:\n{tail(container.logs().decode(errors='replace'))}")
            chunks, _stat = container.get_archive("/build/base.tar.gz")
            with tempfile.TemporaryFile() as wrapped:
                wrapped.writelines(chunks)
                wrapped.seek(0)
                with tarfile.open(fileobj=wrapped) as tar, in_its_place(place) as file:
                    packed = tar.extractfile("base.tar.gz")
                    assert packed is not None
                    while block := packed.read(1 << 20):
                        file.write(block)
        finally:
            container.remove(force=True, v=True)


def packed_tree(folder: Path) -> bytes:
    """The application's files below /application, as a tar archive that depends on nothing else."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as tar:
        add(tar, "application", None)
        for path in sorted(path for part in PARTS for path in [folder / part, *(folder / part).rglob("*")]):
            add(tar, f"application/{path.relative_to(folder)}", path.read_bytes() if path.is_file() else None)
    return memory.getvalue()


def layer_of_files(kind: str, content: bytes) -> Layer:
    """A layer out of a tar archive."""
    identity = digest_of(content)
    place = KEPT / f"{kind}-{identity.removeprefix('sha256:')[:12]}.tar.gz"
    if not place.exists():
        with in_its_place(place) as file:
            file.write(gzip.compress(content, mtime=0))
    return Layer(place, identity)


def add(tar: tarfile.TarFile, name: str, content: bytes | None) -> None:
    """Add a file, or a folder where there is no content; root's, and as old as any other."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = (tarfile.DIRTYPE, 0o755) if content is None else (tarfile.REGTYPE, 0o644)
    entry.size = len(content or b"")
    tar.addfile(entry, io.BytesIO(content or b""))


def architecture() -> str:
    """This machine's as Docker calls it, which is Debian's name too."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def in_its_place(place: Path) -> Iterator[IO[bytes]]:
    """A file that is there when it is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f"{place.name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            Path(file.name).chmod(0o644)
            Path(file.name).replace(place)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


# --- a registry


def push(made: Image, registry: str, headers: Mapping[str, str] | None = None, ca: str = "") -> str:
    """Give an image to a registry (https://HOST:PORT or http://...); returns the digest by which it is pulled.

    ``headers`` go with every request (Authorization), ``ca`` is the text of the authority the registry's certificate
    is judged by.
    """
    name, _colon, tag = made.name.partition(":")
    context = ssl.create_default_context(cadata=ca) if ca else None

    def ask(method: str, address: str, body: bytes | None = None, kind: str = "application/octet-stream") -> Any:
        request = urllib.request.Request(address, body, {"Content-Type": kind, **(headers or {})}, method=method)
        return urllib.request.urlopen(request, timeout=60, context=context)

    blobs = [(made.identity, made.configuration), *((one.digest, one.packed.read_bytes()) for one in made.layers)]
    for digest, content in blobs:
        with ask("POST", f"{registry}/v2/{name}/blobs/uploads/?mount={digest}", b"") as begun:
            place = urljoin(registry, begun.headers["Location"])
        ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", content).close()
    ask("PUT", f"{registry}/v2/{name}/manifests/{tag}", made.manifest, MANIFEST_TYPE).close()
    return digest_of(made.manifest)


def main(arguments: Sequence[str]) -> int:
    """Build what is asked for and print where its archive lies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("release", nargs="?", metavar="RELEASE")
    parser.add_argument("behaviour", nargs="?", default="good", choices=BEHAVIOURS)
    parser.add_argument("--base", action="store_true", help="the image that the Dockerfile builds on")
    options = parser.parse_args(arguments)
    if bool(options.release) == options.base:
        parser.error("name a RELEASE, or --base")
    try:
        made = build_base() if options.base else build(options.release, options.behaviour)
    except Stop as stop:
        say(str(stop))
        return stop.code
    say(f"{made.name} {made.identity}")
    print(made.archive)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
