# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`make bench`: how long things take, as ratios and differences within one run on one machine.

Compared runs take turns, and medians are shown, so that whatever else the machine does falls on both sides.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import backup_support
import hosts_support
import observe_support
import stack_support

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".cache" / "bench"
ANSIBLE = str(Path(sys.executable).with_name("ansible-playbook"))
TESTHOSTS = [sys.executable, str(ROOT / "tools" / "testhosts")]
RELEASES = ("12", "13")
ROUNDS = 5
FIRST_ROUNDS = 3  # of what takes bare hosts each time
AT_ONCE = 4  # hosts that boot at the same time
FLEET = [f"fleet{number}" for number in range(1, 21)]
LOAD_SECONDS = 4

SITE = """
    nginx_sites:
      - name: localhost
        certificate: {{source: selfsigned}}
        content: {root}/tools/demo_site
        immutable: [/assets/]
"""
BASE_PLAY = """
- hosts: "{{ target }}"
  gather_subset: [min]
  tasks:
    - name: Ping
      ansible.builtin.ping:
"""
ROLES_PLAY = """
- hosts: "{{{{ target }}}}"
  gather_subset: [min]
  vars:{site}  roles: {roles}
"""
# Debian's nginx as its package brings it, beside ours on the same host, with one TLS server for the same file.
PLAIN_PORT = 8444
PLAIN_NGINX = r"""
apt-get install -qq -y wrk > /dev/null
cd /tmp && apt-get download -qq nginx-common && dpkg-deb -x nginx-common_*.deb plain
cd plain/etc/nginx && mkdir -p sites-enabled modules-enabled && rm -f sites-enabled/*
sed -i 's#/etc/nginx/#/tmp/plain/etc/nginx/#; s#/run/nginx.pid#/run/plain.pid#' nginx.conf
sed -i 's#/var/log/nginx/#/var/log/nginx/plain-#' nginx.conf
cat > sites-enabled/tls <<END
server {
    listen 127.0.0.1:%d ssl;
    server_name localhost;
    ssl_certificate /etc/nginx/certificates/localhost/chain.pem;
    ssl_certificate_key /etc/nginx/certificates/localhost/key.pem;
    $(grep -hE '^ *ssl_(ciphers|ecdh_curve) ' /etc/nginx/nginx.conf)
    root /var/www/localhost;
}
END
nginx -c /tmp/plain/etc/nginx/nginx.conf
"""


@dataclass(frozen=True)
class Play:
    """Roles that are measured together, the packages they bring, and what a run without changes may take."""

    name: str
    roles: tuple[str, ...]
    packages: tuple[str, ...]
    seconds_above: float | None = None  # the base play's
    times: float | None = None  # the base play's

    @property
    def file(self) -> str:
        return f"{self.name}.yml"

    def bar(self, ours: float, other: float) -> tuple[str, str, bool]:
        """How the two compare, the bar, and whether it holds."""
        if self.times is not None:
            return f"{ours / other:.2f} x", f"{self.times} x", ours / other <= self.times
        above = self.seconds_above or 0
        return f"+{ours - other:.2f} s", f"+{above} s", ours - other <= above


NGINX = Play("nginx", ("nginx",), ("nginx", "openssl"), seconds_above=1.5)
HOST = Play(
    "host",
    ("hardening", "sshd", "firewall"),
    (
        *("aide", "aide-common", "cracklib-runtime", "fail2ban", "libpam-pwquality", "needrestart", "nftables"),
        *("openssh-server", "python3-systemd", "sudo", "unattended-upgrades"),
    ),
    times=3,
)
BASE = "base.yml"
RUNTIME_PLAY = """
- hosts: data
  gather_facts: true
  gather_subset: [min]
  roles:
    - role: fushuma.production.redis
    - role: fushuma.production.mariadb
      mariadb_connections: >-
        {{{{ query('fushuma.production.exports', 'connections', hosts=groups['all'])
           | selectattr('host', 'eq', inventory_hostname) }}}}
- hosts: app
  gather_facts: false
  roles: [fushuma.production.docker]
- ansible.builtin.import_playbook: {root}/playbooks/plays/applications.yml
"""

# What is backed up: 20,000 files of 2 GiB in all, and a database of 500 MiB; neither can be compressed to nothing.
BACKUP_FILES = """
import os
for number in range(20000):
    folder = f"/srv/uploads/{number % 100}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{number}", "wb") as file:
        file.write(os.urandom((2 << 30) // 20000))
"""
BACKUP_TABLE = """
CREATE TABLE large (id INT PRIMARY KEY, text TEXT);
INSERT INTO large SELECT seq, HEX(RANDOM_BYTES(512)) FROM seq_1_to_512000;
"""
BACKUP_OURS = "systemctl start production-backup@run.service"
BACKUP_MEMORY = "command time --format=%M production-backup run 2>&1 >/dev/null | tail -1"
BACKUP_BY_HAND = """
set -e
mariadb-dump --single-transaction --quick --routines --triggers --events --hex-blob shop > /root/hand.sql
RESTIC_PASSWORD=by-hand restic --repo /srv/by-hand backup --quiet /srv/uploads /root/hand.sql
"""
BACKUP_FORGOTTEN = """
set -e
rm -rf /srv/by-hand /srv/backups /root/.cache/restic /var/cache/production-backup
cd /var/lib/production-backup && rm -rf opened listings state.json
RESTIC_PASSWORD=by-hand restic --repo /srv/by-hand init --quiet
production-backup init > /dev/null
"""
RESTORE_OURS = "production-backup restore --what everything --to /root/restored > /dev/null; rm -rf /root/restored"
RESTORE_BY_HAND = """
RESTIC_PASSWORD=by-hand restic --repo /srv/by-hand restore latest --quiet --target /root/restored; rm -rf /root/restored
"""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, the two figures, how they compare, and the bar."""

    what: str
    ours: str
    other: str
    compared: str
    bar: str
    held: bool


def run(argv: Sequence[str]) -> str:
    """A program's output; its words and an end if it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-1000:]}")
    return done.stdout


def timed(argv: Sequence[str]) -> float:
    started = time.monotonic()
    run(argv)
    return time.monotonic() - started


def inside(host: str, script: str) -> str:
    return run([*TESTHOSTS, "exec", host, "--", "sh", "-c", script])


def boot(*hosts: str) -> None:
    """Bare hosts, each ``name:release``; what they were before goes. Plays reach just these."""
    down(*hosts)
    for first in range(0, len(hosts), AT_ONCE):
        run([*TESTHOSTS, "up", *hosts[first : first + AT_ONCE]])
    (WORK / "hosts.yml").write_text(run([*TESTHOSTS, "inventory", *(host.split(":")[0] for host in hosts)]))


def down(*hosts: str) -> None:
    run([*TESTHOSTS, "down", *(host.split(":")[0] for host in hosts)])


def play(name: str, host: str) -> list[str]:
    return [ANSIBLE, "-i", str(WORK / "hosts.yml"), str(WORK / name), "-e", f"target={host}"]


def in_turns(first: Callable[[], float], second: Callable[[], float], rounds: int = ROUNDS) -> tuple[float, float]:
    """The medians of two measurements that take turns."""
    pairs = [(first(), second()) for _round in range(rounds)]
    return statistics.median(one for one, _other in pairs), statistics.median(other for _one, other in pairs)


def requests_per_second(host: str, port: int) -> float:
    load = f"wrk -t1 -c32 -d{LOAD_SECONDS}s https://localhost:{port}/assets/page.css"
    shown = inside(host, load)
    if "Non-2xx" in shown:
        sys.exit(f"{host}: port {port} does not answer with the file:\n{shown}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", shown)[1])  # type: ignore[index]


def first_converge(measured: Play, release: str) -> Row:
    """A bare host and the roles, against a bare installation of the same packages on its twin."""
    ours_on, bare = f"bench{release}", f"benchplain{release}"
    apt = "DEBIAN_FRONTEND=noninteractive apt-get -qq"
    install = f"{apt} update && {apt} install -y --no-install-recommends {' '.join(measured.packages)}"

    def ours() -> float:
        boot(f"{ours_on}:{release}", f"{bare}:{release}")
        return timed(play(measured.file, ours_on))

    def other() -> float:
        return timed([*TESTHOSTS, "exec", bare, "--", "sh", "-c", install])

    converged, installed = in_turns(ours, other, FIRST_ROUNDS)
    ratio = converged / installed
    return Row(
        f"first converge of {measured.name}, Debian {release} (against apt-get install)",
        f"{converged:.1f} s",
        f"{installed:.1f} s",
        f"{ratio:.2f} x",
        "1.5 x",
        ratio <= 1.5,
    )


def no_change(measured: Play, release: str) -> Row:
    """A run that changes nothing, against a play that gathers facts and pings the same host."""
    host = f"bench{release}"
    run(play(measured.file, host))
    ours, other = in_turns(lambda: timed(play(measured.file, host)), lambda: timed(play(BASE, host)))
    return Row(
        f"no-change run of {measured.name}, Debian {release} (against facts and ping)",
        f"{ours:.2f} s",
        f"{other:.2f} s",
        *measured.bar(ours, other),
    )


def fleet(measured: Play, release: str) -> Iterator[Row]:
    """What a run on many hosts takes for each of them, against a run on one of them alone."""
    alone, *others = FLEET
    boot(*(f"{name}:{release}" for name in FLEET))
    first = timed(play(measured.file, alone))
    others_first = timed(play(measured.file, "fleet*:!" + alone)) / len(others)
    yield each_of(f"first converge of {measured.name}, Debian {release}", others_first, first, len(others))
    every, one = in_turns(
        lambda: timed(play(measured.file, "fleet*")) / len(FLEET), lambda: timed(play(measured.file, alone))
    )
    yield each_of(f"no-change run of {measured.name}, Debian {release}", every, one, len(FLEET))


def each_of(what: str, ours: float, other: float, hosts: int) -> Row:
    ratio = ours / other
    return Row(
        f"{what}, for each of {hosts} hosts (against one alone)",
        f"{ours:.2f} s",
        f"{other:.2f} s",
        f"{ratio:.2f} x",
        "1 x",
        ratio <= 1,
    )


def throughput(release: str) -> Row:
    """TLS requests a second, against Debian's default nginx with the same file and ciphers."""
    host = f"bench{release}"
    inside(host, PLAIN_NGINX % PLAIN_PORT)
    for port in (443, PLAIN_PORT):
        requests_per_second(host, port)
    ours, other = in_turns(lambda: requests_per_second(host, 443), lambda: requests_per_second(host, PLAIN_PORT), 7)
    ratio = ours / other
    return Row(
        f"TLS requests a second, Debian {release} (against Debian's default nginx)",
        f"{ours:.0f}",
        f"{other:.0f}",
        f"{ratio:.3f} x",
        "0.95 x",
        ratio >= 0.95,
    )


def runtime(release: str) -> Iterator[Row]:
    """Runtime and data with an application: a run that changes nothing, and deployments of an image that is there."""
    host = hosts_support.booted(f"benchstack{release}", release)
    try:
        stack = stack_support.on_one(host, WORK)
        inventory = str(stack.inventory(stack.settings("1.0.0")))
        site, deploy, ours = ("playbooks/site.yml", "playbooks/deploy.yml", str(WORK / "runtime.yml"))
        run([ANSIBLE, "-i", inventory, site])
        base = [ANSIBLE, "-i", inventory, str(WORK / BASE), "-e", f"target={host.name}"]
        quiet, other = in_turns(lambda: timed([ANSIBLE, "-i", inventory, ours]), lambda: timed(base))
        yield Row(
            f"no-change run of docker, redis, mariadb and app, Debian {release} (against facts and ping)",
            f"{quiet:.2f} s",
            f"{other:.2f} s",
            f"{quiet / other:.2f} x",
            "3 x",
            quiet / other <= 3,
        )
        took = []
        for number in range(FIRST_ROUNDS + 2):
            inventory = str(stack.inventory(stack.settings(f"1.{number % 2 + 1}.0")))
            took.append(timed([ANSIBLE, "-i", inventory, deploy]))
        # The first two have brought the images.
        typical = statistics.median(took[2:])
        yield Row(
            f"deployment of an image that is there, Debian {release}",
            f"{typical:.1f} s",
            f"{took[0]:.1f} s with its image",
            f"{typical:.1f} s",
            "20 s",
            typical <= 20,
        )
    finally:
        hosts_support.removed(host.name)


def observe(release: str) -> Iterator[Row]:
    """All that watches a host with everything: a run that changes nothing."""
    host = hosts_support.booted(f"benchobserve{release}", release)
    try:
        watched = observe_support.Watched(host, WORK)
        watched.around()
        watched.site().ok()
        inventory = str(watched.stack.inventory(watched.settings))
        base = [ANSIBLE, "-i", inventory, str(WORK / BASE), "-e", f"target={host.name}"]
        quiet, other = in_turns(
            lambda: timed([ANSIBLE, "-i", inventory, str(observe_support.OBSERVING)]), lambda: timed(base)
        )
        yield Row(
            f"no-change run of all that watches, Debian {release} (against facts and ping)",
            f"{quiet:.2f} s",
            f"{other:.2f} s",
            f"{quiet / other:.2f} x",
            "4 x",
            quiet / other <= 4,
        )
    finally:
        hosts_support.removed(host.name)


def backup(release: str) -> Iterator[Row]:
    """A backup through the role, against the same dump and the same restic by hand."""
    host = hosts_support.booted(f"benchbackup{release}", release)
    try:
        (here, *_others) = backup_support.settings()["backup_repositories"]
        kept = backup_support.Kept(
            host, WORK, host.name, backup_support.settings(backup_repositories=[{**here, "offsite": True}])
        )
        kept.bring_up(rows=1000, files=10)
        host.install("time")
        host.python(BACKUP_FILES)
        host.write("/root/large.sql", BACKUP_TABLE)
        host.sh("mariadb --no-defaults shop < /root/large.sql")

        def takes(script: str) -> Callable[[], float]:
            def measured() -> float:
                started = time.monotonic()
                host.sh(script)
                return time.monotonic() - started

            return measured

        def first(script: str) -> Callable[[], float]:
            def measured() -> float:
                host.sh(BACKUP_FORGOTTEN)
                return takes(script)()

            return measured

        pair = in_turns(first(BACKUP_OURS), first(BACKUP_BY_HAND), FIRST_ROUNDS)
        yield as_long(
            f"first backup of 2 GiB and a database of 500 MiB, Debian {release} (against by hand)", *pair, 1.1
        )
        for script in (BACKUP_OURS, BACKUP_BY_HAND):
            host.sh(script)
        pair = in_turns(takes(BACKUP_OURS), takes(BACKUP_BY_HAND), FIRST_ROUNDS)
        yield as_long(f"the same again, unchanged, Debian {release} (against by hand)", *pair, 1.1)
        memory = int(host.sh(BACKUP_MEMORY)) / 1024
        print(f"  its largest process took {memory:.0f} MiB of memory", flush=True)
        ours, other = in_turns(takes(RESTORE_OURS), takes(RESTORE_BY_HAND), 1)
        yield as_long(f"restore of all of it to a folder, Debian {release} (against restic alone)", ours, other, None)
    finally:
        hosts_support.removed(host.name)


def as_long(what: str, ours: float, other: float, times: float | None) -> Row:
    """Two durations and how much longer ours may take; None where that is only shown."""
    ratio = ours / other
    bar = f"{times} x" if times else "none"
    return Row(what, f"{ours:.1f} s", f"{other:.1f} s", f"{ratio:.2f} x", bar, times is None or ratio <= times)


def told(row: Row) -> Row:
    """The row, said at once, so that it is not lost where a later measurement fails."""
    print(f"  {row.what}: {row.ours} / {row.other} = {row.compared} (bar {row.bar})", flush=True)
    return row


def table(rows: Sequence[Row]) -> str:
    lines = [("", "ours", "other", "compared", "bar", "")]
    lines += [(row.what, row.ours, row.other, row.compared, row.bar, "holds" if row.held else "MISSED") for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


# What can be measured alone; the throughput is that of the host on which nginx was measured.
PARTS: dict[str, Callable[[str], Iterator[Row]]] = {
    "host": lambda release: roles_alone(HOST, release),
    "nginx": lambda release: roles_alone(NGINX, release),
    "runtime": runtime,
    "backup": backup,
    "observe": observe,
}


def roles_alone(measured: Play, release: str) -> Iterator[Row]:
    yield first_converge(measured, release)
    yield no_change(measured, release)
    if measured is NGINX:
        yield throughput(release)


def main(wanted: Sequence[str]) -> int:
    """Measure all, or only the parts that are named: those above, and `fleet`."""
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / BASE).write_text(BASE_PLAY)
    (WORK / "runtime.yml").write_text(RUNTIME_PLAY.format(root=ROOT))
    for one in (HOST, NGINX):
        roles = [f"fushuma.production.{role}" for role in one.roles]
        (WORK / one.file).write_text(ROLES_PLAY.format(site=SITE.format(root=ROOT), roles=roles))
    chosen = wanted or [*PARTS, "fleet"]
    rows: list[Row] = []
    try:
        for release in RELEASES:
            for name in PARTS:
                if name in chosen:
                    print(f"{name}, Debian {release} ...", flush=True)
                    rows += map(told, PARTS[name](release))
        if "fleet" in chosen:
            print(f"{len(FLEET)} hosts, Debian {RELEASES[0]} ...", flush=True)
            rows += map(told, fleet(HOST, RELEASES[0]))
    finally:
        down(*(f"{kind}{release}" for release in RELEASES for kind in ("bench", "benchplain")), *FLEET)
    print("\n" + table(rows))
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
