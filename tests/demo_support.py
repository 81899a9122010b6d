# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The demo site on test hosts: its own settings, sites beside it, and an application behind them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from hosts_support import ROOT, Host, play, wait_for, write_inventory

DEMO = ROOT / "inventories" / "demo"
GROUPS = ("edge", "app", "data")  # of the demo's one host, but for what watches it
APP = ROOT / "tests" / "upstream_app.py"
PLACEHOLDER = secrets.token_hex(16)


def settings(sites: Path, public_port: int) -> dict[str, Any]:
    """The demo's settings with the sites of a file beside its own; clients reach them at ``public_port``."""
    demo: dict[str, Any] = yaml.safe_load((DEMO / "group_vars" / "all" / "main.yml").read_text("utf-8"))
    own = demo["static_sites"] + yaml.safe_load(sites.read_text("utf-8"))
    return {
        **demo,
        "exporters_enabled": False,
        "nginx_sites": own,
        "nginx_public_https_port": public_port,
        "placeholder": PLACEHOLDER,
    }


def serve(hosts: Sequence[Host], folder: str, chosen: Mapping[str, Any]) -> None:
    """Converge hosts by site.yml, as an operator does, and start the application behind their sites.

    ``folder`` is below .cache, as deep as the demo's inventory, whose settings name places relative to themselves.
    """
    inventory = write_inventory(ROOT / ".cache" / folder / "hosts.yml", hosts, chosen, GROUPS)
    play(ROOT / "playbooks" / "site.yml", inventory).ok()
    with ThreadPoolExecutor() as pool:
        list(pool.map(start_application, hosts))


def start_application(one: Host) -> None:
    """Run the application as a service until the host goes."""
    one.run(["systemctl", "stop", "upstream.service"], check=False)
    one.write("/srv/upstream_app.py", APP.read_text("utf-8"))
    one.run(["systemd-run", "--quiet", "--collect", "--unit=upstream", "python3", "/srv/upstream_app.py", PLACEHOLDER])
    up = ["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 3000)).close()"]
    wait_for(lambda: one.run(up, check=False).code == 0, f"the application answers on {one.name}")
