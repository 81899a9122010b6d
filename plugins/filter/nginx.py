# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import maintenance, specs
from ansible_collections.fushuma.production.plugins.plugin_utils import nginx_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils.problem import sentences


def nginx_model(settings: Any) -> dict[str, Any]:
    """What the nginx role's templates need, worked out of its settings."""
    try:
        return model.model(specs.settled("nginx", settings))
    except (TypeError, ValueError, OSError) as error:
        raise AnsibleFilterError(f"nginx_model: {error}") from error


def nginx_maintenance(told: Any, settings: Any, host: str = "") -> dict[str, Any]:
    """What nginx is told of a site that is shut for a while, or what stands against it."""
    if not (isinstance(told, Mapping) and isinstance(settings, Mapping)):
        raise AnsibleFilterError("nginx_maintenance: expects what is wanted and the role's settings, each as a dict")
    wanted = maintenance.wanted_of(told)
    if found := sentences(maintenance.problems(wanted, settings["nginx_sites"]), host):
        return {"problems": found, "files": [], "probe": []}
    where = settings["nginx_listen_addresses"], settings["nginx_https_port"]
    return {"problems": [], **maintenance.model(wanted, *where)}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"nginx_maintenance": nginx_maintenance, "nginx_model": nginx_model}
