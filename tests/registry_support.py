# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A registry of images on a test host: Debian's docker-registry, over TLS, for those who log in."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field

import application_image
from hosts_support import Host, wait_for

FOLDER = "/etc/docker/registry"
PORT = 5000
CONFIG = f"""
version: 0.1
storage: {{filesystem: {{rootdirectory: /var/lib/docker-registry}}, delete: {{enabled: true}}}}
http: {{addr: ":{PORT}", tls: {{certificate: {FOLDER}/cert.pem, key: {FOLDER}/key.pem}}}}
auth: {{htpasswd: {{realm: registry, path: {FOLDER}/users}}}}
"""
PREPARE = f"""
set -eu
cd {FOLDER}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=registry \
    -addext "subjectAltName=DNS:$1,IP:$2,IP:127.0.0.1" -keyout key.pem -out cert.pem 2> /dev/null
printf %s "$4" | htpasswd -niB "$3" > users
chown docker-registry key.pem users
systemctl restart docker-registry.service
"""
# The program starts for several seconds; a connection that is refused is none.
ANSWERS = ["sh", "-c", f"ss -Hltn sport = {PORT} | grep -q ."]


@dataclass(frozen=True)
class Registry:
    """A registry. ``ca`` is for clients that judge its certificate: /etc/docker/certs.d/ADDRESS:5000/ca.crt."""

    host: Host
    ca: str
    user: str = "puller"
    password: str = field(default_factory=lambda: f"canary-{secrets.token_hex(12)}")

    @property
    def place(self) -> str:
        """How other test hosts name it: ADDRESS:PORT."""
        return f"{self.host.record.address}:{PORT}"

    def push(self, image: application_image.Image) -> str:
        """Give it an image; returns the name by which others pull it: ADDRESS:PORT/NAME@sha256:..."""
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        address = f"https://{self.place}"
        digest = application_image.push(image, address, {"Authorization": f"Basic {login}"}, self.ca)
        return f"{self.place}/{image.name.partition(':')[0]}@{digest}"


def serve_registry(host: Host) -> Registry:
    """Install and start a registry on a host."""
    host.install("docker-registry", "apache2-utils", "openssl")
    registry = Registry(host, "")
    host.write(f"{FOLDER}/config.yml", CONFIG)
    host.run(["sh", "-c", PREPARE, "sh", host.name, host.record.address, registry.user, registry.password])
    wait_for(lambda: host.run(ANSWERS, check=False).code == 0, "the registry listens")
    return Registry(host, host.read(f"{FOLDER}/cert.pem"), registry.user, registry.password)
