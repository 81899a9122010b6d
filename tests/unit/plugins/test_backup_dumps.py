# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rows and checksums out of dumps, whatever is in them and however they come, and the programs that write dumps."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
from ansible_collections.fushuma.production.plugins.module_utils.backup import dumps
from ansible_collections.fushuma.production.plugins.module_utils.backup.dumps import (
    READERS,
    MariadbReader,
    PostgresqlReader,
    Table,
    summary,
)
from ansible_collections.fushuma.production.plugins.module_utils.backup.programs import Failure
from ansible_collections.fushuma.production.plugins.module_utils.backup.settings import Source
from hypothesis import given
from hypothesis import strategies as st

from .backups import Host, made

# As mariadb-dump of 10.11 writes it: a routine and a trigger whose bodies look like data, a table with invisible
# columns (rows begin on the line of the statement), names with quotes and newlines in them, a view, a sequence.
ODD = rb"""-- MariaDB dump 10.19

DROP SEQUENCE IF EXISTS `seq`;
CREATE SEQUENCE `seq` start with 100;

LOCK TABLES `empty` WRITE;
/*!40000 ALTER TABLE `empty` DISABLE KEYS */;
/*!40000 ALTER TABLE `empty` ENABLE KEYS */;
UNLOCK TABLES;

LOCK TABLES `inv` WRITE;
/*!40000 ALTER TABLE `inv` DISABLE KEYS */;
INSERT INTO `inv` (`a`, `b),(
``c`) VALUES (9,4),
(10,11);
INSERT INTO `inv` (`a`, `b),(
``c`) VALUES (12,13);
/*!40000 ALTER TABLE `inv` ENABLE KEYS */;
UNLOCK TABLES;

LOCK TABLES `plain` WRITE;
/*!40000 ALTER TABLE `plain` DISABLE KEYS */;
INSERT INTO `plain` VALUES
(1,'a\nb',0x000A0D27,1.5),
(2,'INSERT INTO `plain` VALUES\n(1,\'x\');\n',NULL,NULL),
(3,'-- x\n/*!40000 ALTER TABLE `plain` ENABLE KEYS */;\nUNLOCK TABLES;','',1e300);
/*!40000 ALTER TABLE `plain` ENABLE KEYS */;
UNLOCK TABLES;
DELIMITER ;;
/*!50003 CREATE TRIGGER trg BEFORE INSERT ON plain FOR EACH ROW BEGIN

LOCK TABLES `plain` WRITE;
/*!40000 ALTER TABLE `plain` DISABLE KEYS */;
INSERT INTO `plain` VALUES
(1);
END */;;
DELIMITER ;
DELIMITER ;;
DELIMITER ;
LOCK TABLES `semi;colon' VALUES` WRITE;
/*!40000 ALTER TABLE `semi;colon' VALUES` DISABLE KEYS */;
INSERT INTO `semi;colon' VALUES` VALUES
(');\n(',3),
('',NULL);
/*!40000 ALTER TABLE `semi;colon' VALUES` ENABLE KEYS */;
UNLOCK TABLES;

LOCK TABLES `we``ird
name` WRITE;
/*!40000 ALTER TABLE `we``ird
name` DISABLE KEYS */;
INSERT INTO `we``ird
name` VALUES
(1),
(2);
/*!40000 ALTER TABLE `we``ird
name` ENABLE KEYS */;
UNLOCK TABLES;
/*!50003 DROP PROCEDURE IF EXISTS `p` */;
DELIMITER ;;
CREATE PROCEDURE `p`()
BEGIN
 SELECT '
LOCK TABLES `never` WRITE;
/*!40000 ALTER TABLE `never` DISABLE KEYS */;
INSERT INTO `never` VALUES
(1,2);
';
END
;;
DELIMITER ;
-- Dump completed
"""

# As pg_dump of 15 writes it; a function before the data looks like some.
POSTGRESQL = rb"""--
-- PostgreSQL database dump
--

CREATE FUNCTION public.f() RETURNS void LANGUAGE sql AS $$ select '
--
-- Data for Name: plain; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public.plain (id) FROM stdin;
1
\.

'; $$;

--
-- Data for Name: t; Type: TABLE DATA; Schema: S x; Owner: postgres
--

COPY "S x".t (a) FROM stdin;
7
\.


--
-- Data for Name: empty; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public.empty (a, "b c") FROM stdin;
\.


--
-- Data for Name: nocol; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public.nocol  FROM stdin;

\.


--
-- Data for Name: plain; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public.plain (id, t, b, d) FROM stdin;
1	a\nb	\\x000a5c2e	0.1
2	\\.\n\\.	\N	NaN
3	COPY public.plain (id) FROM stdin;	\\x	\N
\.


--
-- Data for Name: we"ird name; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public."we""ird
name" ("a,b) FROM") FROM stdin;
1
2
\.


--
-- PostgreSQL database dump complete
--
"""


# The tests put another program in its place.
OPTIONS = set(dumps.MARIADB_DUMP)


def table(*rows: bytes) -> Table:
    return {"rows": len(rows), "sha256": hashlib.sha256(b"".join(row + b",\n" for row in rows)).hexdigest()}


def in_blocks(kind: str, dump: bytes, size: int) -> dict[str, Table]:
    reader = READERS[kind]()
    for start in range(0, len(dump), size):
        reader.feed(dump[start : start + size])
    return reader.tables


def test_tables_of_mariadb(tmp_path: Path) -> None:
    assert summary(io.BytesIO(ODD)) == {
        "empty": table(),
        "inv": table(b"(9,4)", b"(10,11)", b"(12,13)"),
        "plain": table(
            rb"(1,'a\nb',0x000A0D27,1.5)",
            rb"(2,'INSERT INTO `plain` VALUES\n(1,\'x\');\n',NULL,NULL)",
            rb"(3,'-- x\n/*!40000 ALTER TABLE `plain` ENABLE KEYS */;\nUNLOCK TABLES;','',1e300)",
        ),
        "semi;colon' VALUES": table(rb"(');\n(',3)", b"('',NULL)"),
        "we`ird\nname": table(b"(1)", b"(2)"),
    }
    (tmp_path / "dump").write_bytes(ODD)
    assert summary(tmp_path / "dump") == summary(io.BytesIO(ODD))


def test_what_looks_like_a_table_once_more_is_none() -> None:
    again = ODD.replace(b"(1,'a", b"(7,'a")
    assert summary(io.BytesIO(ODD + again)) == summary(io.BytesIO(ODD))


def test_what_a_dump_needs_to_be_whole_and_the_same_again() -> None:
    """Seen with MariaDB 10.11: without the last one, rows come in the order of any index that has all columns."""
    assert {"--single-transaction", "--routines", "--triggers", "--events", "--order-by-primary"} <= OPTIONS


def test_tables_of_postgresql() -> None:
    found = summary(io.BytesIO(POSTGRESQL), "postgresql")
    assert {name: one["rows"] for name, one in found.items()} == {
        "public.plain": 3,
        '"S x".t': 1,
        "public.empty": 0,
        "public.nocol": 1,
        'public."we""ird\nname"': 2,
    }
    assert found["public.empty"]["sha256"] == hashlib.sha256().hexdigest()
    changed = POSTGRESQL.replace(b"NaN", b"0.2")
    assert summary(io.BytesIO(changed), "postgresql")["public.plain"] != found["public.plain"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 500])
def test_dumps_in_blocks_of_any_size(size: int) -> None:
    assert in_blocks("mariadb", ODD, size) == summary(io.BytesIO(ODD))
    assert in_blocks("postgresql", POSTGRESQL, size) == summary(io.BytesIO(POSTGRESQL), "postgresql")


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)
# A row as mariadb-dump escapes it: no newline of its own, and all else.
ROWS = st.lists(
    st.text(st.sampled_from("ab;,()`'\\*/ -\n")).map(
        lambda text: "('" + text.replace("\\", "\\\\").replace("\n", "\\n") + "')"
    )
)


@given(st.dictionaries(NAMES, ROWS, max_size=4), st.integers(1, 4), st.integers(1, 200))
def test_any_tables_however_their_rows_are_split(tables: dict[str, list[str]], rows: int, size: int) -> None:
    """However many rows a statement has, and wherever blocks end, rows and checksums are the same."""
    dump, wanted = "-- MariaDB dump\n", {}
    for name, lines in tables.items():
        quoted = name.replace("`", "``")
        dump += f"\nLOCK TABLES `{quoted}` WRITE;\n/*!40000 ALTER TABLE `{quoted}` DISABLE KEYS */;\n"
        for start in range(0, len(lines), rows):
            dump += f"INSERT INTO `{quoted}` VALUES\n" + ",\n".join(lines[start : start + rows]) + ";\n"
        dump += f"/*!40000 ALTER TABLE `{quoted}` ENABLE KEYS */;\nUNLOCK TABLES;\n"
        wanted[name] = table(*(line.encode() for line in lines))
    assert in_blocks("mariadb", (dump + "-- Dump completed\n").encode(), size) == wanted


def test_what_is_between_blocks_is_bounded() -> None:
    for reader, dump in ((MariadbReader(), ODD), (PostgresqlReader(), POSTGRESQL)):
        reader.feed(dump + b"x" * 10**6)
        assert len(reader._rest) <= reader.KEPT


def test_a_reader_needs_to_know_a_kind_of_dump() -> None:
    with pytest.raises(NotImplementedError):
        dumps.Reader().feed(b"")


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    (tmp_path / "stage").mkdir()
    return made(tmp_path, monkeypatch)


def test_a_database_with_any_name(host: Host) -> None:
    (host.bin / "sql" / "odd`one.sql").write_bytes(ODD)
    [one] = dumps.mariadb(["odd`one"], host.root / "stage", 20)
    assert one.file == "mariadb/odd%60one.sql"
    assert (one.bytes, one.sha256) == (len(ODD), hashlib.sha256(ODD).hexdigest())
    assert one.as_dict()["tables"] == summary(io.BytesIO(ODD))
    assert one.as_dict()["character_set"] == "utf8mb4"


def test_a_dump_that_takes_a_while(host: Host) -> None:
    """What is read while it is written is what is there at the end."""
    half = len(ODD) // 2
    (host.bin / "first").write_bytes(ODD[:half])
    (host.bin / "second").write_bytes(ODD[half:])
    script = f"#!/bin/sh\ncd {host.bin}; cat first; sleep 0.2; cat second\n"
    (host.bin / "mariadb-dump").write_text(script)
    [one] = dumps.mariadb(["shop"], host.root / "stage", 20)
    assert one.tables == summary(io.BytesIO(ODD))
    assert one.sha256 == hashlib.sha256(ODD).hexdigest()


def test_an_error_that_has_a_number_gets_words(host: Host) -> None:
    (host.bin / "mariadb-dump").write_text("#!/bin/sh\necho 'Got errno 28 on write' >&2\nexit 5\n")
    with pytest.raises(Failure, match=r"Got errno 28 \(No space left on device\) on write"):
        dumps.mariadb(["shop"], host.root / "stage", 20)
    assert dumps.in_words("went wrong (Errno: 13)") == "went wrong (Errno: 13 (Permission denied))"
    assert dumps.in_words("Error 2013: Lost connection") == "Error 2013: Lost connection"


def test_a_dump_that_takes_too_long(host: Host) -> None:
    (host.bin / "mariadb-dump").write_text("#!/bin/sh\nwhile :; do sleep 0.01; done\n")
    with pytest.raises(Failure, match=r"could not be dumped \(exit code 124\): ended after 0 s"):
        dumps.mariadb(["shop"], host.root / "stage", 0.2)


def test_a_stage_that_cannot_be_written(host: Host) -> None:
    (host.root / "stage" / "mariadb" / "shop.sql").mkdir(parents=True)
    with pytest.raises(Failure, match=r"The mariadb database shop cannot be written to .*: Is a directory"):
        dumps.mariadb(["shop"], host.root / "stage", 20)


@pytest.fixture
def cluster(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A PostgreSQL server with the databases stats, odd'one and postgres."""
    dump = host.bin / "stats.sql"
    dump.write_bytes(POSTGRESQL)
    names = (("C.UTF-8", "postgres"), ("C.UTF-8", "stats"), ("C", "odd'one"))
    (host.bin / "databases").write_text("".join(f"UTF8\t{collation}\t{name}\n" for collation, name in names))
    scripts = {
        "psql": f"cat >/dev/null; cat {host.bin}/databases",
        "pg_dump": f'echo "$*" >> {host.bin}/asked; cat {dump}',
        "pg_dumpall": "echo CREATE ROLE app;",
    }
    for name, script in scripts.items():
        (host.bin / name).write_text(
            f"#!/bin/sh\n[ -e {host.bin}/no-{name} ] && {{ echo refused >&2; exit 2; }}\n{script}\n"
        )
        (host.bin / name).chmod(0o755)
        monkeypatch.setattr(dumps, name.upper(), str(host.bin / name))
    monkeypatch.setattr(dumps, "as_user", lambda user: ["/usr/bin/env", f"AS={user}"])
    return host


def test_postgresql(cluster: Host) -> None:
    stage = cluster.root / "stage"
    assert [one.name for one in dumps.postgresql([], stage, 20)] == ["stats", "odd'one"]
    assert [one.name for one in dumps.postgresql(["postgres"], stage, 20)] == ["postgres"]
    [one] = dumps.postgresql(["stats"], stage, 20, ["--host=/run/x"])
    assert (one.file, one.collation) == ("postgresql/stats.sql", "C.UTF-8")
    assert one.tables == summary(io.BytesIO(POSTGRESQL), "postgresql")
    assert (stage / "postgresql" / "globals.sql").read_text() == "CREATE ROLE app\n"
    asked = (cluster.bin / "asked").read_text().splitlines()
    assert asked[-1] == "--no-password --host=/run/x --dbname=dbname='stats'"
    assert r"--dbname=dbname='odd\'one'" in asked[1]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("psql", "PostgreSQL does not answer: refused"),
        ("pg_dump", r"The postgresql database stats could not be dumped \(exit code 2\): refused"),
        ("pg_dumpall", r"The roles of PostgreSQL could not be dumped \(exit code 2\): refused"),
    ],
)
def test_postgresql_that_fails(cluster: Host, program: str, said: str) -> None:
    (cluster.bin / f"no-{program}").touch()
    with pytest.raises(Failure, match=said):
        dumps.postgresql(["stats"], cluster.root / "stage", 20)


def test_a_database_that_postgresql_does_not_have(cluster: Host) -> None:
    with pytest.raises(Failure, match="PostgreSQL has no database wine"):
        dumps.postgresql(["wine"], cluster.root / "stage", 20)


def test_another_user_of_the_system() -> None:
    assert dumps.as_user("postgres")[1:] == ["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]


# --- Redis ------------------------------------------------------------------------------------------------------------


def redis(host: Host, seconds: float = 20) -> dict[str, object]:
    source = Source(**{**host.config["sources"][3], "cli": tuple(host.config["sources"][3]["cli"])})
    waited: list[float] = []
    return dict(dumps.redis(source, host.root / "stage", seconds, waited.append))


def test_a_fresh_save(host: Host) -> None:
    found = redis(host)
    digest = hashlib.sha256(b"REDIS0010").hexdigest()
    assert found == {
        "instance": "cache",
        "file": "redis/cache.rdb",
        "bytes": 9,
        "sha256": digest,
        "keys": 3,
        "version": "7.0.15",
    }


def test_a_save_that_had_begun_is_not_the_one(host: Host) -> None:
    (host.bin / "redis-busy").write_text("1")
    (host.bin / "redis-other").touch()
    assert redis(host)["keys"] == 3
    assert (host.bin / "redis-saves").read_text() == "1\n", "asked for once more after the other one"
    asked = (host.bin / "redis-log").read_text().splitlines()
    assert asked == ["INFO", "INFO", "BGSAVE", "INFO", "BGSAVE", "INFO", "INFO"]


@pytest.mark.parametrize(
    ("made_so", "content", "said"),
    [
        ("redis-status", "err", "could not save its data: see journalctl -u redis-server@cache.service"),
        ("redis-mute", "", "says nothing of its saves"),
        ("redis-down", "", "does not answer INFO: Could not connect"),
    ],
)
def test_an_instance_that_does_not_save(host: Host, made_so: str, content: str, said: str) -> None:
    (host.bin / made_so).write_text(content)
    with pytest.raises(Failure, match=said):
        redis(host)


def test_a_save_that_does_not_come(host: Host) -> None:
    (host.bin / "redis-never").touch()
    with pytest.raises(Failure, match="did not save its data in time"):
        redis(host, 0.2)


def test_data_of_redis_that_is_not_whole(host: Host) -> None:
    (host.root / "dump.rdb").write_text("garbage")
    with pytest.raises(Failure, match=r"is not whole: .*RDB ERROR DETECTED"):
        redis(host)
    os.remove(host.root / "dump.rdb")
    with pytest.raises(Failure, match="cannot be copied"):
        redis(host)


def test_a_save_without_a_version(host: Host) -> None:
    (host.bin / "redis-check-rdb").write_text("#!/bin/sh\necho '[info] 0 keys read'\n")
    assert (redis(host)["version"], redis(host)["keys"]) == ("", 0)
