# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's half of docker_config: all that service_config's does, for another module."""

from __future__ import annotations

from ansible_collections.fushuma.production.plugins.action.service_config import ActionModule as ServiceConfig


class ActionModule(ServiceConfig):
    module = "fushuma.production.docker_config"
    service = "docker"
