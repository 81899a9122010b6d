# Managed by Ansible, role fushuma.production.sentry.
"""What Bugsink needs besides itself: its programs, its database before and after an upgrade, and what is declared.

    bugsink.py install | compile        the programs that the requirements name, in a folder of their own
    bugsink.py installed                end with 0 where they are there, and the database is theirs
    bugsink.py judge                    what Bugsink says of its configuration
    bugsink.py migrate | back           bring the database to these programs; put back what was there before
    bugsink.py go-back                  allow the next run to take that copy, though what came since is lost
    bugsink.py declare | declared       projects, users and alerts
    bugsink.py manage WORD...           Bugsink's own commands
    bugsink.py copy                     a consistent copy of the database, for backups

Standard library only, for the host's Python. Secrets come from files and go on by pipes.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/bugsink")
PROGRAMS = Path("/opt/bugsink")
DATA = Path("/var/lib/bugsink")
COPIES = Path("/var/lib/bugsink-copies")
DATABASES = ("db.sqlite3", "snappea.sqlite3")
WHEELS = Path("/usr/share/python-wheels")
UNITS = ("bugsink.service", "bugsink-snappea.service")


class Failure(Exception):
    """What an operator is told in a sentence."""


def main(words: Sequence[str]) -> int:
    try:
        done = COMMANDS[words[0]](*words[1:])
    except (KeyError, IndexError):
        print(__doc__, file=sys.stderr)
        return 2
    except (Failure, OSError) as error:
        print(f"bugsink: {error}", file=sys.stderr)
        return 1
    return 0 if done is None else done


def config() -> dict[str, Any]:
    """The settings that are no secret."""
    return dict(json.loads((CONFIG / "production.json").read_text("utf-8")))


def run(*argv: str, text: str = "", user: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end; what it wrote is told where it fails."""
    as_user: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
    done = subprocess.run(
        argv,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
        check=False,
        cwd="/",
        **as_user,
    )
    if done.returncode:
        told = " | ".join(line for line in done.stdout.splitlines()[-5:] if line.strip())
        raise Failure(f"`{' '.join(argv[:4])}` ended with {done.returncode}: {told}")
    return done.stdout


# --- the programs -----------------------------------------------------------------------------------------------------


def wanted_programs() -> dict[str, Any]:
    """Which programs work with which database: ``{programs, system_packages, database: {...}}``."""
    return dict(json.loads((CONFIG / "programs.json").read_text("utf-8")))


def folder() -> Path:
    return PROGRAMS / str(wanted_programs()["programs"])


def mark() -> str:
    """What the folder was made of: another Python or other requirements need another one."""
    import hashlib  # here and below only where it is needed: the role asks for some things in each run

    text = (CONFIG / "requirements.txt").read_bytes() + json.dumps(wanted_programs()["system_packages"]).encode()
    return f"{hashlib.sha256(text).hexdigest()} {sys.version_info[0]}.{sys.version_info[1]}\n"


def usable() -> bool:
    try:
        return (folder() / "complete").read_text("utf-8") == mark() and (folder() / "bin/python").exists()
    except OSError:
        return False


def install() -> None:
    """Unpack all that the requirements name. What was cut short is made anew."""
    if usable():
        return
    os.umask(0o022)
    here = folder()
    shutil.rmtree(here, ignore_errors=True)
    PROGRAMS.mkdir(mode=0o755, exist_ok=True)
    options = ["--system-site-packages"] if wanted_programs()["system_packages"] else []
    run("/usr/bin/python3", "-m", "venv", "--without-pip", *options, str(here))
    # Debian's own pip, which so is no part of what runs.
    wheel = max(WHEELS.glob("pip-*.whl"), default=None)
    if wheel is None:
        raise Failure(f"there is no pip in {WHEELS}")
    pip = [str(here / "bin/python"), f"{wheel}/pip", "--no-input", "--disable-pip-version-check", "install", "--quiet"]
    sure = ["--require-hashes", "--only-binary=:all:", "--no-deps", "--no-compile"]
    run(*pip, *sure, "-r", str(CONFIG / "requirements.txt"))


def compile_all() -> None:
    """Compile it, for nobody may write there later; then it is whole, and what nobody needs any more goes."""
    if usable():
        return
    os.umask(0o022)
    here = folder()
    # Some packages bring examples for other versions of Python, which are none for this one.
    subprocess.run([str(here / "bin/python"), "-m", "compileall", "-qq", str(here / "lib")], check=False)
    (here / "complete").write_text(mark(), "utf-8")
    kept = {here.name, migrated().split(" ")[0]}
    for other in PROGRAMS.iterdir():
        if other.is_dir() and other.name not in kept:
            shutil.rmtree(other)


def judge() -> None:
    """Have Bugsink itself look at its configuration; where its programs are still to come, that comes with them."""
    if usable():
        manage("check")


def installed() -> int:
    """0 where the programs are there and the database is theirs."""
    return 0 if usable() and migrated() == pair() else 1


# --- the database -----------------------------------------------------------------------------------------------------


def pair() -> str:
    """The programs that are wanted, and the database they work with."""
    wanted = wanted_programs()
    database = wanted["database"]
    return f"{wanted['programs']} {database['kind']}:{database['host']}/{database['name']}"


def migrated() -> str:
    """The pair of programs and database as it was last made; "" before the first."""
    with contextlib.suppress(OSError):
        return (COPIES / "migrated").read_text("utf-8").strip()
    return ""


def note(name: str) -> None:
    COPIES.mkdir(mode=0o700, exist_ok=True)
    (COPIES / "migrated").write_text(f"{name}\n", "utf-8")


def copied() -> dict[str, str]:
    """Of which programs the copy is, and for which it was made: ``{from, to}``."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((COPIES / "copy.json").read_text("utf-8")))
    return {"from": "", "to": ""}


def migrate() -> None:
    """Copy the data, then bring the database to these programs."""
    name, before = pair(), migrated()
    if name == before:
        return
    copy = copied()
    if before and copy == {"from": name, "to": before}:
        if not (COPIES / "go-back").exists():
            raise Failure(
                f"the database was brought to {before}, which {name} cannot work with. To have the copy that was made"
                " before, and lose what came since, run `bugsink-production go-back` on the host, and repeat"
            )
        (COPIES / "go-back").unlink()
        back()
        return
    if before:
        run("systemctl", "stop", *UNITS)
    if before.partition(" ")[2] == name.partition(" ")[2]:
        save(before, name)
    # The second is there for backups before the first copy is made.
    for path in (DATA, DATA / "copy"):
        path.mkdir(mode=0o700, exist_ok=True)
        shutil.chown(path, "bugsink", "bugsink")
    manage("migrate", "--no-input", "--verbosity=0")
    manage("migrate", "snappea", "--database=snappea", "--no-input", "--verbosity=0")
    note(name)


def go_back() -> None:
    """Allow the next run to go back to what was there before an upgrade."""
    (COPIES / "go-back").touch()


def save(before: str, name: str) -> None:
    COPIES.mkdir(mode=0o700, exist_ok=True)
    (COPIES / "copy.json").unlink(missing_ok=True)
    if wanted_programs()["database"]["kind"] == "mariadb":
        with (COPIES / "database.sql").open("w", encoding="utf-8") as file, client_file() as options:
            database = wanted_programs()["database"]["name"]
            argv = ["mariadb-dump", f"--defaults-extra-file={options}", "--single-transaction", database]
            if subprocess.run(argv, stdout=file, check=False).returncode:
                raise Failure("the database could not be copied, and so nothing was done to it")
    for one in DATABASES:
        if (DATA / one).exists():
            copy_database(DATA / one, COPIES / one)
    (COPIES / "copy.json").write_text(json.dumps({"from": before, "to": name}), "utf-8")


def back() -> None:
    """Put back the copy that was made for other programs than those that are wanted now."""
    wanted, copy = pair(), copied()
    if copy["from"] != wanted:
        # The first programs of all, or another database: nothing was done to what was there before.
        if migrated():
            note(wanted)
        return
    run("systemctl", "stop", *UNITS)
    if wanted_programs()["database"]["kind"] == "mariadb":
        load_dump()
    for one in DATABASES:
        if (COPIES / one).exists():
            for left in (f"{one}-wal", f"{one}-shm", f"{one}-journal"):
                (DATA / left).unlink(missing_ok=True)
            shutil.copyfile(COPIES / one, DATA / f"{one}.new")
            shutil.chown(DATA / f"{one}.new", "bugsink", "bugsink")
            (DATA / f"{one}.new").rename(DATA / one)
    note(wanted)
    (COPIES / "copy.json").unlink()


def load_dump() -> None:
    """An empty database, and what the dump says in it: tables that came since would be in the way of the next time."""
    with connected() as database:
        cursor = database.cursor()
        cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
        cursor.execute("SHOW TABLES")
        for (table,) in cursor.fetchall():
            cursor.execute(f"DROP TABLE `{table}`")
    with (COPIES / "database.sql").open(encoding="utf-8") as file, client_file() as options:
        argv = ["mariadb", f"--defaults-extra-file={options}", wanted_programs()["database"]["name"]]
        if subprocess.run(argv, stdin=file, check=False).returncode:
            raise Failure(f"the database could not be put back; its copy is {COPIES}/database.sql")


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of a database in use. ``target`` is there as a whole or not at all."""
    import sqlite3

    new = target.with_name(f"{target.name}.new")
    new.unlink(missing_ok=True)
    read_only = f"file:{source}?mode=ro"
    with (
        contextlib.closing(sqlite3.connect(read_only, uri=True)) as one,
        contextlib.closing(sqlite3.connect(new)) as other,
    ):
        one.backup(other, pages=2000, sleep=0.01)
    new.rename(target)


def copy() -> None:
    """The copy that backups take; run as Bugsink's user."""
    target = DATA / "copy"
    target.mkdir(mode=0o700, exist_ok=True)
    copy_database(DATA / DATABASES[0], target / DATABASES[0])


@contextlib.contextmanager
def client_file() -> Iterator[str]:
    """A file with the password, for MariaDB's own programs."""
    wanted, secrets = wanted_programs()["database"], json.loads((CONFIG / "secrets.json").read_text("utf-8"))
    where = f"host={wanted['host']}\nport={wanted['port']}\n" if wanted["host"] else ""
    path = Path("/run") / f"bugsink-{os.getpid()}.cnf"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f'[client]\nuser={wanted["user"]}\npassword="{secrets["db"]}"\n{where}')
        yield str(path)
    finally:
        path.unlink()


@contextlib.contextmanager
def connected() -> Iterator[Any]:
    """The database, without Bugsink, which takes a second to begin."""
    wanted = wanted_programs()["database"]
    if wanted["kind"] == "mariadb":
        import MySQLdb

        secrets = json.loads((CONFIG / "secrets.json").read_text("utf-8"))
        where = {"host": wanted["host"], "port": wanted["port"]} if wanted["host"] else {}
        given = {"user": wanted["user"], "passwd": secrets["db"], "db": wanted["name"], **where}
        try:
            found = MySQLdb.connect(connect_timeout=5, **given)
        except MySQLdb.Error as error:
            raise Failure(f"the database does not answer ({error})") from error
    else:
        import sqlite3

        found = sqlite3.connect(f"file:{DATA / DATABASES[0]}?mode=ro", uri=True, timeout=5)
    with contextlib.closing(found):
        yield found


# --- what is declared -------------------------------------------------------------------------------------------------


def manage(*words: str, text: str = "") -> None:
    """One of Bugsink's commands, as its user; it reads its secrets from a pipe."""
    reader, writer = os.pipe()
    account = pwd.getpwnam("bugsink")
    os.fchown(reader, account.pw_uid, account.pw_gid)
    with os.fdopen(writer, "wb") as pipe:
        pipe.write((CONFIG / "secrets.json").read_bytes())
    try:
        done = subprocess.run(
            [str(folder() / "bin/bugsink-manage"), *words],
            input=text or None,
            stdin=None if text else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
            user="bugsink",
            group="bugsink",
            extra_groups=[],
            umask=0o077,
            pass_fds=[reader],
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(DATA),
                "LC_ALL": "C.UTF-8",
                "DJANGO_SETTINGS_MODULE": "bugsink_conf",
                "PYTHONPATH": str(CONFIG),
                "PYTHONDONTWRITEBYTECODE": "1",
                "BUGSINK_SECRETS": f"/dev/fd/{reader}",
            },
        )
    finally:
        os.close(reader)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise Failure(f"`bugsink-manage {words[0]}` ended with {done.returncode}: {' | '.join(lines[-3:])}")
    if words[0] not in ("shell", "migrate", "check"):
        sys.stdout.write(done.stdout)


def declare() -> None:
    """Make projects, users, alerts and tokens what they shall be."""
    program = (CONFIG / "declare.py").read_text("utf-8")
    wanted = json.loads((CONFIG / "declared.json").read_text("utf-8"))
    told = json.dumps({**wanted, "organisation": config()["organisation"]})
    manage("shell", text=f"WANTED = {told!r}\n{program}")


def declared() -> int:
    """0 where all that is declared is in the database."""
    wanted = json.loads((CONFIG / "declared.json").read_text("utf-8"))
    if wanted_programs()["database"]["kind"] == "sqlite":
        # What root opens might leave files behind that Bugsink could not write.
        account = pwd.getpwnam("bugsink")
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    try:
        with connected() as database:
            missing = differences(database.cursor(), wanted)
    # Whatever its library makes of it: it is not as it is declared.
    except Exception as error:  # noqa: BLE001
        missing = [str(error)]
    for one in missing:
        print(one)
    return 1 if missing else 0


def differences(cursor: Any, wanted: Mapping[str, Any]) -> list[str]:
    """What is declared and is not so."""
    cursor.execute("SELECT id, sentry_key, is_deleted, retention_max_event_count FROM projects_project")
    projects = {row[0]: (str(row[1]).replace("-", ""), bool(row[2]), row[3]) for row in cursor.fetchall()}
    cursor.execute("SELECT project_id, kind, config FROM alerts_messagingserviceconfig")
    services = {(row[0], row[1], json.loads(row[2]).get("webhook_url")) for row in cursor.fetchall()}
    cursor.execute(
        "SELECT m.project_id, u.username FROM projects_projectmembership m JOIN auth_user u ON u.id = m.user_id"
        " WHERE m.accepted AND m.send_email_alerts AND u.is_active"
    )
    members = set(cursor.fetchall())
    cursor.execute("SELECT token FROM bsmain_authtoken")
    tokens = {row[0] for row in cursor.fetchall()}
    cursor.execute("SELECT username FROM auth_user WHERE is_superuser AND is_active")
    admins = {row[0] for row in cursor.fetchall()}
    found = []
    if wanted["admin"]["email"] not in admins:
        found.append("the admin is missing")
    for one in wanted["projects"]:
        if projects.get(one["number"]) != (one["key"], False, one["events"]):
            found.append(f"project {one['number']} is not as declared")
        for alert in one["services"]:
            if (one["number"], alert["kind"], alert["url"]) not in services:
                found.append(f"an alert of project {one['number']} is missing")
        for address in one["mails"]:
            if (one["number"], address) not in members:
                found.append(f"an alert by mail of project {one['number']} is missing")
    found += ["a token is missing" for token in wanted["tokens"] if token["token"] not in tokens]
    return found


COMMANDS = {
    "install": install,
    "compile": compile_all,
    "judge": judge,
    "installed": installed,
    "migrate": migrate,
    "back": back,
    "go-back": go_back,
    "declare": declare,
    "declared": declared,
    "manage": manage,
    "copy": copy,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
