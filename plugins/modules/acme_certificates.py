#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: acme_certificates
short_description: Have certbot fetch the certificates that are not there yet, and bring them into force
version_added: 0.1.0
description:
  - Asks certbot for each certificate that the host does not have, or has for other names or from another authority.
    Renewals
    are left to certbot's own timer.
  - A certificate that certbot keeps and that is not in force, because something broke off in between, is brought into
    force.
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
      folder:
        description: Where O(deploy_hook) puts C(chain.pem) and C(key.pem).
        type: path
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
      - name: www.fushuma.com
        names: [www.fushuma.com, fushuma.com]
        folder: /etc/nginx/certificates/www.fushuma.com
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
deployed:
  description: The names of the certificates that certbot had and that were only brought into force.
  type: list
  elements: str
  returned: always
"""

import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils.journal import run, snapshot

PARTS = {"fullchain.pem": "chain.pem", "privkey.pem": "key.pem"}  # certbot's names, and those of the server


def lineage(wanted: dict[str, Any], config: str) -> str:
    """Where certbot keeps the newest version of a certificate."""
    return os.path.join(config, "live", wanted["name"])


def is_missing(wanted: dict[str, Any], directory: str, config: str) -> bool:
    """Whether certbot does not keep this certificate for just these names from this authority."""
    try:
        renewal = Path(config, "renewal", f"{wanted['name']}.conf").read_text("utf-8")
    except OSError:
        return True
    chain = os.path.join(lineage(wanted, config), "cert.pem")
    shown = run(["openssl", "x509", "-in", chain, "-noout", "-ext", "subjectAltName"])
    names = set(re.findall(r"DNS:([^,\s]+)", shown.output))
    server = re.search(r"^server\s*=\s*(\S+)", renewal, re.MULTILINE)
    return names != set(wanted["names"]) or server is None or server[1] != directory


def is_in_force(wanted: dict[str, Any], config: str) -> bool:
    """Whether the server has what certbot keeps: state decides, for a hook that failed does not make certbot fail."""
    kept = lineage(wanted, config)
    return all(
        os.path.exists(f"{kept}/{theirs}")
        and Path(kept, theirs).read_bytes() == snapshot(os.path.join(wanted["folder"], ours)).data
        for theirs, ours in PARTS.items()
    )


def request(wanted: dict[str, Any], params: dict[str, Any]) -> list[str]:
    """The argv by which certbot fetches one certificate."""
    argv = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--config-dir", params["config"]]
    argv += ["--webroot", "--webroot-path", params["webroot"], "--server", params["directory"]]
    argv += ["--cert-name", wanted["name"], "--key-type", "ecdsa", "--renew-with-new-domains", "--force-renewal"]
    argv += ["--deploy-hook", params["deploy_hook"]]
    argv += ["--email", params["email"]] if params["email"] else ["--register-unsafely-without-email"]
    return argv + [part for name in wanted["names"] for part in ("--domain", name)]


def deployment(wanted: dict[str, Any], params: dict[str, Any]) -> list[str]:
    """The argv that brings a certificate into force, in the environment in which certbot runs its hooks."""
    return ["env", f"RENEWED_LINEAGE={lineage(wanted, params['config'])}", params["deploy_hook"]]


def fetch_and_deploy(wanted: dict[str, Any], params: dict[str, Any], *, fetch: bool) -> str:
    """Bring a certificate into force, fetched before where that is asked for; returns what went wrong."""
    if fetch and (done := run(request(wanted, params))).code:
        return done.output
    if is_in_force(wanted, params["config"]):
        return ""
    done = run(deployment(wanted, params))
    return done.output if done.code else ""


def main() -> None:
    one = {
        "name": {"type": "str", "required": True},
        "names": {"type": "list", "elements": "str", "required": True},
        "folder": {"type": "path", "required": True},
    }
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
    idle = [each for each in params["certificates"] if each not in missing and not is_in_force(each, params["config"])]
    wrong = {}
    for wanted in [] if module.check_mode else [*missing, *idle]:
        if words := fetch_and_deploy(wanted, params, fetch=wanted in missing):
            wrong[wanted["name"]] = words
    fetched, deployed = ([each["name"] for each in some if each["name"] not in wrong] for some in (missing, idle))
    if wrong:
        module.fail_json(
            msg="A certificate could not be fetched or brought into force; its site goes on with the one it has. "
            + " ".join(f"{name}: {words}" for name, words in wrong.items()),
            changed=bool(fetched or deployed),
            fetched=fetched,
            deployed=deployed,
        )
    diff = [{"before": "", "after": ", ".join(each["names"]) + "\n", "after_header": each["name"]} for each in missing]
    diff += [{"prepared": f"{each['name']}: brought into force\n"} for each in idle]
    module.exit_json(changed=bool(missing or idle), fetched=fetched, deployed=deployed, diff=diff)


if __name__ == "__main__":
    main()
