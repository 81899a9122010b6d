# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`make demo`: a throw-away host, everything of site.yml on it, a backup on another one, and a page to open."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import application_image
import yaml
from testhosts import host, inventory
from testhosts.cli import main as testhosts
from testhosts.common import shown

ROOT = Path(__file__).resolve().parent.parent
INVENTORY = ROOT / "inventories" / "demo"
CONNECTION = INVENTORY / "host_vars" / "demo" / "connection.yml"
SECRETS = INVENTORY / ".secrets"
NAME, RELEASE = "demo", "13"
OFFSITE = "demo-offsite"  # where its backups go
NETWORK = "demo"
HTTPS_PORT = 8443
URL = f"https://localhost:{HTTPS_PORT}/"
SHOP = f"https://shop.localhost:{HTTPS_PORT}/"
LOGS = f"https://logs.localhost:{HTTPS_PORT}/"
DASHBOARDS = f"https://dashboards.localhost:{HTTPS_PORT}/"
FIRST, NEXT = "1.0.0", "1.1.0"  # releases of the shop
ANSWER_SECONDS = 30.0
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# Programs that Debian does not have: an archive of each, where this variable of the environment names one.
GIVEN = {"loki": "LOKI_ARCHIVE", "grafana": "GRAFANA_ARCHIVE"}
INBOX = ROOT / "molecule" / "shared" / "files" / "inbox.py"
# A user who comes by SFTP with a key, and gets no further than its folder.
TAKE_BACKUPS = """
set -eu
id demo >/dev/null 2>&1 || useradd --no-create-home --home-dir /srv/demo --shell /usr/sbin/nologin demo
install -d -m 0755 /srv/demo
install -d -m 0700 -o demo -g demo /srv/demo/restic
echo "$1" >/etc/ssh/demo.keys
printf '%s\\n' 'Match User demo' 'AuthorizedKeysFile /etc/ssh/demo.keys' 'ChrootDirectory /srv/demo' \
    'ForceCommand internal-sftp' 'AllowTcpForwarding no' >/etc/ssh/sshd_config.d/demo.conf
systemctl reload ssh.service
cat /etc/ssh/ssh_host_ed25519_key.pub
"""
# Somebody who is told, by webhook and by mail.
TAKE_MESSAGES = """
set -eu
install -d -m 0700 /srv/inbox
printf '%s' "$1" >/srv/inbox/inbox.py
printf '%s\\n' '[Service]' 'ExecStart=/usr/bin/python3 /srv/inbox/inbox.py 0.0.0.0' >/etc/systemd/system/inbox.service
systemctl daemon-reload
systemctl restart inbox.service
"""


def up() -> int:
    """Boot the host, converge it, see that it answers, and say what runs; returns the exit code."""
    started = time.monotonic()
    failed = testhosts(["up", f"{NAME}:{RELEASE}", "--publish", f"{HTTPS_PORT}:443", "--network", NETWORK])
    failed = failed or testhosts(["up", f"{OFFSITE}:{RELEASE}", "--network", NETWORK])
    if failed:
        return failed
    CONNECTION.parent.mkdir(parents=True, exist_ok=True)
    image = application_image.build(FIRST)
    told = {
        **inventory.variables(host.record_of(NAME)),
        **given(os.environ),
        "shop_archive": str(image.archive),
        "offsite_host_key": take_backups(),
    }
    CONNECTION.write_text("---\n" + yaml.safe_dump(told, sort_keys=False))
    on(OFFSITE, "sh", "-c", TAKE_MESSAGES, "sh", INBOX.read_text())
    # Behind a company's own authority the host reaches PyPI as this machine does.
    converged = played("tools/demo_authorities.yml") if AUTHORITIES.exists() else 0
    print("Running playbooks/site.yml ...", flush=True)
    converged = converged or played("playbooks/site.yml")
    if converged:
        print(
            "The playbook failed; its words stand above. `make demo` goes on from here, `make demo-down` removes all."
        )
        return converged
    wrong = wait_for_answer()
    if wrong:
        print(f"{URL} does not answer as it should: {wrong}")
        return 1
    seconds = time.monotonic() - started
    print("Making a backup, and restoring what lies on the other host for a drill ...", flush=True)
    print(summary(seconds, drilled(), told))
    return 0


def given(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings by which Loki and Grafana come from the archives that were named."""
    settings: dict[str, Any] = {}
    for role, variable in GIVEN.items():
        if environment.get(variable):
            archive = Path(environment[variable]).resolve()
            with archive.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            settings[f"{role}_enabled"] = True
            settings[f"{role}_archive"] = {"source": str(archive), "sha256": digest}
    return settings


def played(playbook: str) -> int:
    """Run a playbook on the demo; returns its exit code."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return subprocess.run([program, "-i", str(INVENTORY), playbook], cwd=ROOT, check=False).returncode


def on(name: str, *argv: str) -> str:
    """What a command says on a host, run there as root; raises CalledProcessError."""
    command = [sys.executable, str(ROOT / "tools" / "testhosts"), "exec", name, "--", *argv]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def take_backups() -> str:
    """Have the other host take backups; returns the key by which it is known."""
    key = SECRETS / "offsite"
    if not key.exists():
        key.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", NAME, "-f", str(key)], check=True)
    return on(OFFSITE, "sh", "-c", TAKE_BACKUPS, "sh", key.with_suffix(".pub").read_text()).strip()


def drilled() -> str:
    """Back up, restore from the other host beside everything else, and say what was measured."""
    try:
        on(NAME, "systemctl", "start", "production-backup@run.service")
        (found,) = json.loads(on(NAME, "production-backup", "drill", "--json"))["drills"]
    except (subprocess.CalledProcessError, ValueError) as error:
        return f"failed: {error}"
    return f"RTO {found['rto_seconds']:.1f} s, RPO {found['rpo_seconds']:.1f} s, measured by a drill just now"


def wait_for_answer() -> str:
    """Empty once the page answers; else why it does not."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE  # the demo's certificate is its own
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            with urllib.request.urlopen(URL, timeout=5, context=trusting) as answer:
                return "" if answer.status == 200 else f"status {answer.status}"
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                return str(error)
        time.sleep(0.2)


def summary(seconds: float, drill: str, told: Mapping[str, Any]) -> str:
    """What now runs, how to open it, where its secrets lie and how to remove it."""
    logs = f"none kept: {GIVEN['loki']}=FILE make demo, with Loki's zip file, keeps them"
    if told.get("loki_enabled"):
        query = f"{LOGS}loki/api/v1/query_range --data-urlencode 'query={{job=\"shop\"}}'"
        logs = f"curl -k -G -u operator:$(cat {shown(SECRETS)}/logs-operator) {query}"
    dashboards = f"none: {GIVEN['grafana']}=FILE make demo, with Grafana's tar.gz file, shows them"
    if told.get("grafana_enabled"):
        dashboards = f"{DASHBOARDS}, user admin, password in {shown(SECRETS)}/grafana-admin"
    new = f"$(.venv/bin/python tools/application_image.py {NEXT})"
    ssh = f".venv/bin/python tools/testhosts exec {NAME} -- bash"
    whole = "nginx (TLS, a strict CSP), Docker, MariaDB, Redis, a shop, backups and all that watches them"
    rows = [
        (
            "runs",
            f"Debian {RELEASE} with {whole}, in {seconds:.0f} s",
        ),
        ("open", f"{URL} (on 127.0.0.1; the certificate is self-signed, so the browser asks once)"),
        ("and", f"{SHOP}, an application in containers"),
        ("deploy", f".venv/bin/ansible-playbook -i inventories/demo playbooks/deploy.yml -e shop_archive={new}"),
        ("go back", ".venv/bin/ansible-playbook -i inventories/demo playbooks/rollback.yml"),
        ("figures", f"{URL}status, user operator, password in {shown(SECRETS)}/status-operator"),
        (
            "watch",
            f"https://prometheus.localhost:{HTTPS_PORT}/classic/alerts, user operator, password in "
            f"{shown(SECRETS)}/prometheus-operator",
        ),
        (
            "errors",
            f"https://errors.localhost:{HTTPS_PORT}/, user operator@demo.test, password in "
            f"{shown(SECRETS)}/errors-operator; {SHOP}api/failure makes one",
        ),
        ("logs", logs),
        ("dashboards", dashboards),
        ("be told", f".venv/bin/python tools/testhosts exec {OFFSITE} -- tail -f /srv/inbox/told"),
        ("secrets", f"{shown(SECRETS)}/ (made on this machine, ignored by git)"),
        ("backups", f"in /srv/backups and on {OFFSITE}; restored from there: {drill}"),
        ("run again", ".venv/bin/ansible-playbook -i inventories/demo playbooks/site.yml"),
        ("look inside", ssh),
        ("remove", "make demo-down"),
    ]
    return "\n" + "\n".join(f"  {name:<12} {text}" for name, text in rows) + "\n"


def down() -> int:
    """Remove both hosts, how they were reached and their secrets."""
    failed = testhosts(["down", NAME, OFFSITE])
    shutil.rmtree(CONNECTION.parent, ignore_errors=True)
    shutil.rmtree(SECRETS, ignore_errors=True)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The demo host.")
    parser.add_argument("action", choices=["up", "down"])
    sys.exit({"up": up, "down": down}[parser.parse_args().action]())
