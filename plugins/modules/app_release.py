#!/usr/bin/python
# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: app_release
short_description: Have a release of a container application beside the present one, and then in its place
version_added: 0.3.0
description:
  - A deployment has steps, and each is a call of its own, for visitors are sent to the release between them, on other
    hosts.
  - What runs is asked of Docker each time. A deployment that was killed at any point is finished by the next one.
options:
  state:
    description:
      - With V(planned) nothing is changed; the answer says what would be.
      - With V(prepared) the release is there and ready beside what runs. Where that fails it goes again.
      - With V(committed) the release replaces what ran, which is drained and removed.
      - With V(settled) what a deployment has left that was cut short goes, once visitors are with the present release.
      - With V(withdrawn) the release goes, and what ran stays. The task then fails with O(why).
    type: str
    choices: [planned, settled, prepared, committed, withdrawn]
    required: true
  applications:
    description: The applications, as the filter P(fushuma.production.app_model#filter) gives them. Only with
      O(state=planned) there may be several.
    type: list
    elements: dict
    required: true
  meant:
    description: What is meant besides the application's settings, as V(planned) has said.
    type: dict
  restart:
    description: An application whose release is to be started anew, or C(*) for all.
    type: str
    default: ""
  scale:
    description: How many replicas of each process of an application there are to be, until the settings say another
      number than now.
    type: dict
    default: {}
  force:
    description: Also an image that was rolled back.
    type: bool
    default: false
  back:
    description: The release before the present one.
    type: bool
    default: false
  migrates:
    description: Whether this host is the one that migrates the database.
    type: bool
    default: true
  edge:
    description: The name by which the nginx of this very host knows the host, where it has one. With V(planned) the
      answer says whether nginx has been told, which spares the call that would tell it.
    type: str
    default: ""
  timers:
    description: The units of what runs at its time, which O(files) bring. With V(planned) the answer says whether the
      host has them so, which spares the call that would bring them.
    type: list
    elements: str
    default: []
  why:
    description: Why the release is withdrawn, for the host's memory.
    type: str
    default: ""
  send:
    description: Whether the host lacks the image, as V(planned) has said, so that the controller has to send it.
    type: bool
    default: true
  image_file:
    description: The image or its context, as the controller has sent it. Set by the action itself.
    type: path
    default: ""
  environments:
    description: The variables of all processes as base64 of JSON. Set by the action itself, out of O(applications).
    type: str
    default: ""
extends_documentation_fragment: [fushuma.production.files]
attributes:
  check_mode:
    support: full
    description: Says what would be done, without an image being pulled, loaded or built.
  diff_mode:
    support: full
    description: Shows the release before and after; of the environment only the names.
  platform:
    support: full
    platforms: debian
    description: Debian 12 and 13 with Docker.
seealso:
  - module: fushuma.production.service_config
author:
  - fushuma.production contributors (@fushuma)
"""

EXAMPLES = r"""
- name: See what would be deployed
  fushuma.production.app_release:
    state: planned
    applications: "{{ {'app_applications': app_applications} | fushuma.production.app_model }}"
  register: planned
"""

RETURN = r"""
plans:
  description: What there is and what would be done, for each application. No secret is in it.
  type: list
  elements: dict
  returned: always
  sample:
    - name: shop
      release: 5d1f0c7a9b3e
      meant:
        image: {identity: "sha256:...", source: registry, reference: "registry.example.net/shop@sha256:..."}
        variant: ""
        scale: {}
      steps: [migrate the database, start web 1, send visitors to release 5d1f0c7a9b3e]
      changed: true
      migrates: true
      lacks_image: false
      held: false
      slot: b
      current: a
      unsettled: false
      told: true
      addresses: {web: {a: ["127.0.0.1:8100"], b: ["127.0.0.1:8110"]}}
timers_differ:
  description: Whether O(timers) is not what the host has.
  type: bool
  returned: for C(planned)
removed:
  description: What was removed.
  type: list
  elements: str
  returned: for C(settled) and C(committed)
token:
  description: What a request says that is to reach the release before others do.
  type: str
  returned: for C(prepared)
"""

import base64
import json
import secrets
import time
from dataclasses import asdict, replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fushuma.production.plugins.module_utils import releases
from ansible_collections.fushuma.production.plugins.module_utils.arguments import (
    DIRECTORY_SPEC,
    FILE_SPEC,
    directories_from,
    files_from,
)
from ansible_collections.fushuma.production.plugins.module_utils.engine import Docker
from ansible_collections.fushuma.production.plugins.module_utils.journal import Store, TransactionError
from ansible_collections.fushuma.production.plugins.module_utils.probe import Probe
from ansible_collections.fushuma.production.plugins.module_utils.releases import (
    Application,
    Image,
    Memory,
    Plan,
    Process,
)
from ansible_collections.fushuma.production.plugins.module_utils.transaction import Directory, File, Service, converge

NGINX = "nginx.service"
STATES = ["planned", "settled", "prepared", "committed", "withdrawn"]


def application_from(told: dict[str, Any], environments: dict[str, dict[str, str]]) -> Application:
    """The application as the controller describes it. Raises TypeError for what is none."""
    processes = [Process(**{**one, "environment": environments.get(one["name"], {})}) for one in told["processes"]]
    image = Image(**told["image"])
    return Application(**{**told, "image": image, "processes": processes, "ports": tuple(told["ports"])})


def as_meant(application: Application, meant: dict[str, Any]) -> Application:
    """The application with what its plan said of it."""
    counts = {name: one["replicas"] for name, one in meant["scale"].items()}
    processes = [replace(one, replicas=counts.get(one.name, one.replicas)) for one in application.processes]
    return replace(application, **{**meant, "image": Image(**meant["image"]), "processes": processes})


def as_result(plan: Plan, memory: Memory) -> dict[str, Any]:
    application = plan.application
    return {
        "name": application.name,
        "release": application.release,
        "meant": {"image": asdict(application.image), "variant": application.variant, "scale": application.scale},
        "steps": list(plan.steps),
        "changed": bool(plan.steps),
        "migrates": plan.migrates,
        "lacks_image": plan.lacks_image,
        "slot": plan.slot,
        "current": memory.slot,
        "unsettled": plan.unsettled,
        "addresses": releases.addresses(application, memory, plan.slot),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": STATES, "required": True},
            "applications": {"type": "list", "elements": "dict", "required": True},
            "meant": {"type": "dict"},
            "restart": {"type": "str", "default": ""},
            "scale": {"type": "dict", "default": {}},
            "force": {"type": "bool", "default": False},
            "back": {"type": "bool", "default": False},
            "migrates": {"type": "bool", "default": True},
            "edge": {"type": "str", "default": ""},
            "timers": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "dict", "default": [], "options": FILE_SPEC},
            "directories": {"type": "list", "elements": "dict", "default": [], "options": DIRECTORY_SPEC},
            "why": {"type": "str", "default": ""},
            "send": {"type": "bool", "default": True},
            "image_file": {"type": "path", "default": ""},
            # One value, so that what is logged lacks it and nothing else.
            "environments": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        environments = json.loads(base64.b64decode(params["environments"]) or "{}")
        applications = [application_from(one, environments.get(one["name"], {})) for one in params["applications"]]
        if params["state"] == "planned" or module.check_mode:
            result = planned(applications, params, check=module.check_mode, diff=module._diff)
        else:
            (application,) = applications
            application = as_meant(application, params["meant"]) if params["meant"] else application
            with Store(f"release-{application.name}").locked():
                result = carried_out(application, params)
    except (TransactionError, OSError) as error:
        module.fail_json(msg=str(error))
    except (TypeError, ValueError, KeyError) as error:
        module.fail_json(msg=f"an application is not as app_model gives it: {error}")
    module.exit_json(**result)


def planned(applications: list[Application], params: dict[str, Any], *, check: bool, diff: bool) -> dict[str, Any]:
    engine = Docker(absent_ok=check)
    found, diffs = [], []
    for told in applications:
        memory = Memory(told.name)
        meant = releases.wanted(
            told,
            memory,
            force=params["force"],
            back=params["back"],
            variant=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) if params["restart"] in (told.name, "*") else "",
            scale={name: int(count) for name, count in params["scale"].get(told.name, {}).items()},
        )
        plan = releases.plan(meant, memory, engine, migrates=params["migrates"] and not params["back"])
        result = as_result(plan, memory)
        found.append(
            {
                **result,
                "held": meant.image != told.image and not params["back"],
                "told": bool(params["edge"]) and as_it_is(nginx(told.name, params["edge"], result)),
            }
        )
        if diff and plan.steps:
            before = memory.current.get("described", "")
            steps = "".join(f"would: {step}\n" for step in plan.steps) if check else ""
            header = f"application {told.name}"
            after = releases.described(meant, memory) + steps
            diffs.append({"before": before, "after": after, "before_header": header, "after_header": header})
    # To plan changes nothing; a dry run answers for what the later steps would do.
    changed = check and any(one["changed"] for one in found)
    differ = bool(params["timers"]) and not as_it_is(scheduled(params))
    return {"changed": changed, "plans": found, "diff": diffs, "timers_differ": differ}


def as_it_is(service: Service) -> bool:
    """Whether a transaction would have nothing to do."""
    return not converge(service, Store(service.name), check=True).changed


def scheduled(params: dict[str, Any]) -> Service:
    """As the role's task makes it of the same settings."""
    folders = directories_from(params["directories"])
    return Service("app-timers", files_from(params["files"]), folders, units=params["timers"])


def nginx(application: str, host: str, planned: dict[str, Any]) -> Service:
    """As the play makes it that tells nginx where an application answers."""
    told = releases.nginx_files(application, host, planned["addresses"], planned["slot"])
    files = [
        File(
            f"{folder}/{name}",
            None if content is None else content.encode(),
            on_change=None if name.endswith(releases.ADDRESSES) else "nothing",
        )
        for folder, contents in told.items()
        for name, content in contents.items()
    ]
    folders = [Directory(folder, group=releases.NGINX_GROUP, mode=0o750, prune=True) for folder in told]
    probe = Probe(unit=NGINX, newer=[file.dest for file in files if file.dest.endswith(releases.ADDRESSES)])
    name = f"application-{application}-{host}"
    return Service(name, files, folders, units=[NGINX], probes=[probe] if told else [], probe_timeout=0)


def carried_out(application: Application, params: dict[str, Any]) -> dict[str, Any]:
    engine, memory = Docker(), Memory(application.name)
    if params["state"] == "prepared":
        plan = releases.prepare(
            application, memory, engine, migrates=params["migrates"], image_file=params["image_file"]
        )
        return {"changed": True, "plans": [as_result(plan, memory)], "token": secrets.token_hex(16)}
    if params["state"] == "settled":
        removed = releases.settle(memory, engine, application.name)
    elif params["state"] == "committed":
        removed = releases.commit(application, memory, engine, back=params["back"])
    else:
        releases.withdraw(application, memory, engine, params["why"])
        raise TransactionError(
            f"{application.name} was not deployed, and visitors have what they had before. {params['why']}"
        )
    plan = releases.plan(application, memory, engine, migrates=False)
    return {"changed": bool(removed), "plans": [as_result(plan, memory)], "removed": removed}


if __name__ == "__main__":
    main()
