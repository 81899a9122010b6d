#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: self_signed_certificates
short_description: Have a certificate in every place where a server expects one
version_added: 0.1.0
description:
  - Makes a key and a self-signed certificate for each name that has none, so that a server can start before an
    authority has
    certified it. The keys are made on the host and never leave it.
  - Its own certificates are renewed when their names change or a third of their lifetime is left. Those of others
    are left alone.
  - All certificates are looked after in one round trip.
options:
  certificates:
    description: The certificates.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name that stands in the certificate's subject.
        type: str
        required: true
      names:
        description: The DNS names it is for.
        type: list
        elements: str
        required: true
      folder:
        description: Where C(chain.pem) and C(key.pem) stand.
        type: path
        required: true
      acme:
        description: Whether an authority's certificate is to come here, so that one of anybody else is left alone.
        type: bool
        default: false
  days:
    description: The lifetime of a new certificate in days.
    type: int
    default: 365
attributes:
  check_mode:
    support: full
    description: Says what would be made.
  diff_mode:
    support: full
    description: Names the certificates that are made; keys are never shown.
  platform:
    support: full
    platforms: debian
    description: The openssl package is installed where a certificate has to be made and it is missing.
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Have a certificate for every site
  fushuma.production.self_signed_certificates:
    certificates:
      - {name: www.fushuma.com, names: [www.fushuma.com], folder: /etc/nginx/certificates/www.fushuma.com}
"""

RETURN = r"""
made:
  description: The names of the certificates that were made, or in check mode would be.
  type: list
  elements: str
  returned: always
"""

import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils import packages
from ansible_collections.fushuma.production.plugins.module_utils.journal import (
    Entry,
    TransactionError,
    make_so,
    must,
    run,
    snapshot,
)

MAKER = "fushuma.production placeholder"
SECONDS_A_DAY = 86400


@dataclass(frozen=True)
class Certificate:
    """A certificate that has to be there."""

    name: str
    names: list[str]
    folder: str
    acme: bool = False

    @property
    def chain(self) -> str:
        return os.path.join(self.folder, "chain.pem")

    @property
    def key(self) -> str:
        return os.path.join(self.folder, "key.pem")


def is_pair(wanted: Certificate) -> bool:
    """Whether key and certificate are there and belong together; a run killed between the two leaves others."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(wanted.chain, wanted.key, password="")
    except OSError:
        return False
    return True


def is_missing(wanted: Certificate, days: int) -> bool:
    """Whether the certificate has to be made: it is not there, or is an own one of other names or near its end."""
    if not is_pair(wanted):
        return True
    shown = run(["openssl", "x509", "-in", wanted.chain, "-noout", "-subject", "-ext", "subjectAltName"])
    if MAKER not in shown.output:
        return not wanted.acme
    enough = run(["openssl", "x509", "-in", wanted.chain, "-noout", "-checkend", str(days * SECONDS_A_DAY // 3)])
    return set(re.findall(r"DNS:([^,\s]+)", shown.output)) != set(wanted.names) or enough.code != 0


def make(wanted: Certificate, days: int) -> None:
    """Make key and certificate beside their places and move both in at the end. Raises TransactionError."""
    # The server's package may come later, and takes the folders as they are: none may depend on this process's umask.
    folders = [wanted.folder, *map(str, Path(wanted.folder).parents)]
    lacking = [folder for folder in folders if not os.path.isdir(folder)]
    make_so(Entry(folder, "directory", b"", 0o755, os.geteuid(), os.getegid()) for folder in lacking)
    key, chain = (os.path.join(wanted.folder, f".{part}.new") for part in ("key", "chain"))
    must(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key])
    request = ["openssl", "req", "-new", "-x509", "-sha256", "-key", key, "-out", chain, "-days", str(days)]
    request += ["-subj", f"/O={MAKER}/CN={wanted.name[:64]}", "-addext", "basicConstraints=critical,CA:FALSE"]
    request += ["-addext", "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=serverAuth"]
    request += ["-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in wanted.names)]
    must(request)
    made = [(snapshot(key), wanted.key, 0o600), (snapshot(chain), wanted.chain, 0o644)]
    make_so(Entry(path, "file", entry.data, mode, os.geteuid(), os.getegid()) for entry, path, mode in made)
    make_so([Entry(key), Entry(chain)])


def main() -> None:
    spec: dict[str, Any] = {
        "name": {"type": "str", "required": True},
        "names": {"type": "list", "elements": "str", "required": True},
        "folder": {"type": "path", "required": True},
        "acme": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={
            "certificates": {"type": "list", "elements": "dict", "required": True, "options": spec},
            "days": {"type": "int", "default": 365},
        },
        supports_check_mode=True,
    )
    days = module.params["days"]
    missing = [one for one in (Certificate(**each) for each in module.params["certificates"]) if is_missing(one, days)]
    try:
        if missing and not module.check_mode:
            if wanted := packages.missing(["openssl"]):
                packages.install(wanted)
            os.umask(0o077)
            for one in missing:
                make(one, days)
    except (TransactionError, OSError) as error:
        module.fail_json(msg=str(error))
    diff = [{"before": "", "after": ", ".join(one.names) + "\n", "after_header": one.chain} for one in missing]
    module.exit_json(changed=bool(missing), made=[one.name for one in missing], diff=diff)


if __name__ == "__main__":
    main()
