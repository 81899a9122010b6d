#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: acme_certificates
short_description: Have certbot fetch the certificates that are not there yet
version_added: 0.1.0
description:
  - Asks certbot for each certificate that the host does not have, or has for other names or from another authority.
    Renewals
    are left to certbot's own timer.
  - Challenges are answered from a folder that a running web server serves (HTTP-01).
  - All certificates are looked after in one round trip.
options:
  certificates:
    description: The certificates.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name under which certbot keeps it.
        type: str
        required: true
      names:
        description: The DNS names it is for.
        type: list
        elements: str
        required: true
  directory:
    description: The authority's ACME directory.
    type: str
    required: true
  email:
    description: Where the authority writes to; none is registered when it is left away.
    type: str
  ca_bundle:
    description: A file with the authorities that vouch for O(directory), where it is a private one.
    type: path
  webroot:
    description: The folder from which challenges are answered.
    type: path
    required: true
  deploy_hook:
    description: The program that brings a new certificate into force; certbot runs it now and after each renewal.
    type: path
    required: true
  config:
    description: Where certbot keeps its state.
    type: path
    default: /etc/letsencrypt
attributes:
  check_mode:
    support: full
    description: Says which certificates would be fetched; nobody is asked.
  diff_mode:
    support: full
    description: Names the certificates that are fetched.
  platform:
    support: full
    platforms: debian
    description: Needs the certbot program.
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: Fetch certificates
  fushuma.production.acme_certificates:
    certificates:
      - {name: www.fushuma.com, names: [www.fushuma.com, fushuma.com]}
    directory: https://acme-v02.api.letsencrypt.org/directory
    email: ops@fushuma.com
    webroot: /var/www/acme
    deploy_hook: /usr/local/sbin/deploy-certificate
"""

RETURN = r"""
fetched:
  description: The names of the certificates that were fetched, or in check mode would be.
  type: list
  elements: str
  returned: always
"""

import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils.journal import run


def is_missing(wanted: dict[str, Any], directory: str, config: str) -> bool:
    """Whether certbot does not keep this certificate for just these names from this authority."""
    try:
        renewal = Path(config, "renewal", f"{wanted['name']}.conf").read_text("utf-8")
    except OSError:
        return True
    chain = os.path.join(config, "live", wanted["name"], "cert.pem")
    shown = run(["openssl", "x509", "-in", chain, "-noout", "-ext", "subjectAltName"])
    names = set(re.findall(r"DNS:([^,\s]+)", shown.output))
    server = re.search(r"^server\s*=\s*(\S+)", renewal, re.MULTILINE)
    return names != set(wanted["names"]) or server is None or server[1] != directory


def request(wanted: dict[str, Any], params: dict[str, Any]) -> list[str]:
    """The argv by which certbot fetches one certificate."""
    argv = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--config-dir", params["config"]]
    argv += ["--webroot", "--webroot-path", params["webroot"], "--server", params["directory"]]
    argv += ["--cert-name", wanted["name"], "--key-type", "ecdsa", "--renew-with-new-domains", "--force-renewal"]
    argv += ["--deploy-hook", params["deploy_hook"]]
    argv += ["--email", params["email"]] if params["email"] else ["--register-unsafely-without-email"]
    return argv + [part for name in wanted["names"] for part in ("--domain", name)]


def main() -> None:
    one = {"name": {"type": "str", "required": True}, "names": {"type": "list", "elements": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "certificates": {"type": "list", "elements": "dict", "required": True, "options": one},
            "directory": {"type": "str", "required": True},
            "email": {"type": "str"},
            "ca_bundle": {"type": "path"},
            "webroot": {"type": "path", "required": True},
            "deploy_hook": {"type": "path", "required": True},
            "config": {"type": "path", "default": "/etc/letsencrypt"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["ca_bundle"]:
        # certbot asks the authority through python3-requests, which takes the bundle from here.
        os.environ["REQUESTS_CA_BUNDLE"] = params["ca_bundle"]
    missing = [each for each in params["certificates"] if is_missing(each, params["directory"], params["config"])]
    failed = []
    for wanted in missing:
        if not module.check_mode:
            done = run(request(wanted, params))
            if done.code:
                failed.append(f"{wanted['name']}: {done.output}")
    names = [wanted["name"] for wanted in missing]
    if failed:
        module.fail_json(
            msg="certbot could not fetch a certificate; the sites go on with the one they have. " + " ".join(failed),
            fetched=[name for name in names if not any(text.startswith(f"{name}:") for text in failed)],
        )
    diff = [{"before": "", "after": ", ".join(each["names"]) + "\n", "after_header": each["name"]} for each in missing]
    module.exit_json(changed=bool(missing), fetched=names, diff=diff)


if __name__ == "__main__":
    main()
