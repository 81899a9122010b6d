# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter of the nginx role: what it takes, what it gives, and how it fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError, AnsibleFilterError
from ansible.template import trust_as_template
from ansible_collections.fushuma.production.plugins.filter import nginx as plugin

from ..roles.render import templar

SITE = {"name": "www.fushuma.com", "root": "/srv/www"}
nginx_model = plugin.FilterModule().filters()["nginx_model"]


def test_it_is_called_by_its_full_name_and_fills_in_defaults() -> None:
    found = templar({"settings": {"nginx_sites": [SITE]}}).evaluate_expression(
        trust_as_template("(settings | fushuma.production.nginx_model).sites[0].index")
    )
    assert found == "index.html"


def test_its_documentation_names_what_it_gives() -> None:
    path = Path(plugin.__file__).with_name("nginx_model.yml")
    described = yaml.safe_load(path.read_text("utf-8"))["RETURN"]["_value"]["description"]
    assert set(re.findall(r"\w+", described)) - {"C"} == set(nginx_model({"nginx_sites": [SITE]}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("nginx_sites", "nginx_model: expects the role's settings as a dict, not str"),
        (
            {"nginx_sites": [{}], "nginx_http_port": "x"},
            'nginx_model: nginx_http_port is "x": a whole number is needed. Write for example 80. '
            "nginx_sites[0].name is missing: it has no default that could be right for you. "
            "Write one text, in quotes where it could be read as something else.",
        ),
        (
            {"nginx_sites": [{**SITE, "csp": {"policy": {"img-src": None}}}]},
            "nginx_model: 'NoneType' object is not iterable",
        ),
        (
            {"nginx_sites": [{**SITE, "csp": {"policy": {"img-src": ["'nonce'"]}}}]},
            "nginx_model: img-src uses 'nonce', but there is no value that is new in every response",
        ),
        (
            {"nginx_sites": [{**SITE, "csp": {"html": ["/no/such.html"]}}]},
            "nginx_model: [Errno 2] No such file or directory: '/no/such.html'",
        ),
    ],
)
def test_what_it_cannot_work_out(settings: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        nginx_model(settings)
    assert str(caught.value) == message
    with pytest.raises(AnsibleError):
        templar({"settings": settings}).template(trust_as_template("{{ settings | fushuma.production.nginx_model }}"))
