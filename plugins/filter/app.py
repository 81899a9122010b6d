# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.fushuma.production.plugins.plugin_utils import app_model as model
from ansible_collections.fushuma.production.plugins.plugin_utils import specs


def settings_of(name: str, settings: Any) -> dict[str, Any]:
    """The role's settings with all defaults; raises AnsibleFilterError for what is none."""
    try:
        return specs.settled("app", settings)
    except ValueError as error:
        raise AnsibleFilterError(f"{name}: {error}") from error


def app_model(settings: Any, first: bool = True) -> list[dict[str, Any]]:
    """The applications as the module app_release takes them."""
    try:
        return model.model(settings_of("app_model", settings), first=first)
    except (OSError, ValueError) as error:
        raise AnsibleFilterError(f"app_model: {error}") from error


def app_exports(settings: Any, host: str, first: bool = True) -> dict[str, Any]:
    """What others need to know of the applications of a host.

    The judge says what is wrong in the settings; what of them is right counts for others nevertheless.
    """
    if not isinstance(settings, Mapping):
        raise AnsibleFilterError(f"app_exports: expects the role's settings as a dict, not {type(settings).__name__}")
    try:
        return model.exports(specs.filled(specs.role_options("app"), settings), host, first=first)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"app_exports: {error}") from error


def app_scheduled(settings: Any, first: bool = True) -> list[dict[str, str]]:
    """What runs at its time: unit, application, process and schedule of each."""
    return model.scheduled(settings_of("app_scheduled", settings), first=first)


def app_switch(settings: Any, application: str, *told: Any, **more: Any) -> dict[str, Any]:
    """What nginx is told of an application."""
    return model.switch(one_of(settings_of("app_switch", settings), "app_switch", application), *told, **more)


def one_of(settings: Mapping[str, Any], name: str, application: str) -> Any:
    found = [one for one in settings["app_applications"] if one["name"] == application]
    if not found:
        raise AnsibleFilterError(f"{name}: there is no application {application}")
    return found[0]


def app_env_example(settings: Any, application: str) -> str:
    """The text of a file .env.example for one application."""
    return model.example(one_of(settings_of("app_env_example", settings), "app_env_example", application))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "app_model": app_model,
            "app_exports": app_exports,
            "app_scheduled": app_scheduled,
            "app_switch": app_switch,
            "app_env_example": app_env_example,
        }
