"""What is logged is found in the stores, labelled and without secrets, whatever happens on its way."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from plays import Played, play
from testinfra.host import Host

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text("utf-8"))
CA = "{{ lookup('ansible.builtin.file', lookup('ansible.builtin.env', 'MOLECULE_EPHEMERAL_DIRECTORY') ~ '/tls.pem') }}"
SETTINGS["log_shipper_stores"][0]["ca"] = CA
WORKER, ACCESS, ERRORS, STACKS = (
    "/run/worker",
    "/var/log/nginx/access.log",
    "/var/log/nginx/error.log",
    "/var/log/app.log",
)
FIGURES = "/var/lib/figures/production_logs.prom"
FOUND = "production_logs_canary_timestamp_seconds"


def write(host: Host, texts: Mapping[str, str]) -> None:
    """Append to files, have the worker say it (``/run/worker``), or containers (by their names)."""
    host.check_output("logs write %s", base64.b64encode(json.dumps(texts).encode()).decode())


def stored(host: Host, word: str, number: int) -> list[dict[str, Any]]:
    """The entries with a word that the real store has, as soon as there are so many of them; it has to have so many."""
    found: list[dict[str, Any]] = json.loads(host.check_output("logs store %s %s", word, str(number)))
    assert len(found) >= number, found
    return found


def kept(host: Host, word: str, number: int) -> list[str]:
    """The same of the other store, with nothing but lines and in the order in which they came."""
    found: list[str] = told(host, word, number)["lines"]
    assert len(found) >= number, found
    return found


def told(host: Host, word: str, number: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(host.check_output("logs stub %s %s", word, str(number)))
    return document


def figures(host: Host) -> dict[str, float]:
    """What node_exporter reads, after another look."""
    host.check_output("systemctl start production-logs.service")
    lines = host.file(FIGURES).content_string.splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}


def mark() -> str:
    """A word that no other line has."""
    return f"mark{uuid4().hex[:12]}"


def applied(host: Host, settings: dict[str, Any]) -> Played:
    task = {"ansible.builtin.include_role": {"name": "fushuma.production.log_shipper"}, "vars": settings}
    return play(task, arguments=("--diff", "--limit", host.backend.host))


def test_lines_are_found_by_their_labels(host: Host) -> None:
    word = mark()
    write(
        host,
        {
            WORKER: f"<4>said by a unit {word}\n",
            "shop-web-1": f"said by a container {word}\n",
            "shop-admin-web-1": f'{{"level":50,"msg":"said by a longer name","mark":"{word}"}}\n',
            ACCESS: f'{{"status":200,"path":"/{word}"}}\n',
            ERRORS: f"2026/11/26 10:00:00 [crit] 7#7: it burns {word}\n",
            STACKS: f"2026-11-26 one line {word}\n",
        },
    )
    entries = {one["job"]: one for one in stored(host, word, 6)}
    assert {job: one["level"] for job, one in entries.items()} == {
        "worker": "warning",
        "shop": "info",
        "shop_admin": "err",
        "nginx": "info",
        "nginx_error": "crit",
        "stacks": "info",
    }
    units = {"worker": "worker.service", "nginx": ACCESS, "nginx_error": ERRORS, "stacks": STACKS}
    assert {job: entries[job]["unit"] for job in units} == units
    assert {job: one["container"] for job, one in entries.items() if "container" in one} == {
        "shop": "shop-web-1",
        "shop_admin": "shop-admin-web-1",
    }
    for one in entries.values():
        labels = {part.partition("=")[0] for part in one["_stream"].strip("{}").split(",")}
        assert labels == {"job", "unit", "host", "level"}
        assert one["host"] == host.backend.host
    other = told(host, word, 6)
    assert (len(other["lines"]), other["tenant"]) == (6, "fushuma")


def test_lines_of_an_entry_stay_together_and_those_of_a_container_in_order(host: Host) -> None:
    word = mark()
    stack = f"2026-11-26 {word} it broke\n  at one\n  at two\n2026-11-26 {word} next\n"
    write(host, {STACKS: stack, "shop-web-1": "".join(f"{word} {number}\n" for number in range(50))})
    lines = kept(host, word, 52)
    assert [line for line in lines if not line.startswith("2026")] == [f"{word} {number}" for number in range(50)]
    assert [line for line in lines if line.startswith("2026")] == [
        f"2026-11-26 {word} it broke\n  at one\n  at two",
        f"2026-11-26 {word} next",
    ]


SCRUBBED = {
    "GET / Authorization: Bearer hide1.hide2": "GET / Authorization: Bearer ***",
    '{"password":"hide\\"3","user":"u"}': '{"password":"***","user":"u"}',
    '{"said":"{\\"token\\":\\"hide4\\"}"}': '{"said":"{\\"token\\":\\"***\\"}"}',
    "Set-Cookie: session=hide5; Secure": "Set-Cookie: ***",
    "postgres://shop:hide6@db/shop": "postgres://shop:***@db/shop",
    "login --password hide7": "login --password ***",
    "SET PASSWORD IDENTIFIED BY 'hide8'": "SET PASSWORD IDENTIFIED BY '***'",
    "card 4111 1111 1111 1111": "card ***",
    "api_key=hide9&x=1": "api_key=***&x=1",
    "sent eyJhbGciOiJI.eyJzdWIiOiIx.hide10 to": "sent *** to",
    "glpat-hide11hide11 and AKIAABCDEFGHIJKLMNOP": "*** and ***",
    'customer="AB55501"': 'customer="AB*** (US$)"',
    # A usual rule that is off here.
    "3782 822463 10005": "3782 822463 10005",
}


def test_secrets_stay_on_the_host_and_what_is_no_text_holds_nothing_up(host: Host) -> None:
    word = mark()
    odd = f'{word} \x01 " \\ \t $x ü\n'
    text = odd + "".join(f"{word} {line}\n" for line in SCRUBBED)
    places = (WORKER, ACCESS, "shop-web-1")
    # Nor do bytes that are no UTF-8; not in the journal here, of which other tests read it all.
    write(host, dict.fromkeys(places, text) | {ERRORS: f"{word} \udcff\udc80\n"})
    number = len(places) * (len(SCRUBBED) + 1) + 1
    wanted = Counter({f"{word} {line}": len(places) for line in SCRUBBED.values()})
    for lines in ([one["_msg"] for one in stored(host, word, number)], kept(host, word, number)):
        assert wanted <= Counter(lines)
        assert len(lines) == number
        assert not [line for line in lines if "hide" in line]


def test_what_a_store_refuses_for_good_is_dropped_and_counted(host: Host) -> None:
    word = mark()
    before = figures(host)["production_logs_dropped_total"]
    write(host, {WORKER: f"{word} REFUSED\n"})
    stored(host, word, 1)
    write(host, {WORKER: f"{word} after\n"})
    assert kept(host, word, 1) == [f"{word} after"]
    assert told(host, word, 1)["refused"]
    assert figures(host)["production_logs_dropped_total"] > before


def test_what_is_refused_for_now_comes_later(host: Host) -> None:
    """While it waits, the stores may come in another order."""
    word = mark()
    before = figures(host)
    assert before["production_logs_queued"] == 0
    try:
        for status in (401, 404, 429, 503):
            host.check_output("logs status %s", str(status))
            write(host, {WORKER: f"{word} {status}\n"})
            assert stored(host, f"{word} {status}", 1)
        turned = SETTINGS | {"log_shipper_stores": SETTINGS["log_shipper_stores"][::-1]}
        assert applied(host, turned).code == 0
        after = figures(host)
    finally:
        host.check_output("logs status 204")
    assert sorted(kept(host, word, 4)) == [f"{word} {status}" for status in (401, 404, 429, 503)]
    assert after["production_logs_queued"] >= 4
    # The line that proves it was not found, so its time stands still.
    assert after[FOUND] == pytest.approx(before[FOUND], abs=0.01)
    said = host.check_output("journalctl --unit production-logs.service --output cat --lines 20")
    assert "the line was not found within 10 s at http://127.0.0.1:3100" in said
    assert applied(host, SETTINGS).code == 0


@pytest.mark.parametrize(
    "disturbance",
    [
        # As logrotate does it, and nginx writes to the old file until it is told.
        f"mv {ACCESS} {ACCESS}.1 && echo after >>{ACCESS}.1 && install -m 0640 -g adm /dev/null {ACCESS}",
        "systemctl restart syslog-ng.service",
        "systemctl stop victoria-logs.service; systemctl kill --signal=SIGKILL syslog-ng.service",
    ],
    ids=["rotated", "restarted", "killed while the store is away"],
)
def test_whatever_happens_nothing_is_lost(host: Host, disturbance: str) -> None:
    word, many, parts = mark(), 400, 4
    for part in range(parts):
        numbers = range(part * many // parts, (part + 1) * many // parts)
        write(
            host,
            {
                WORKER: "".join(f"{word} unit {one}\n" for one in numbers),
                ACCESS: "".join(f"{word} file {one}\n" for one in numbers),
                "shop-web-1": "".join(f"{word} container {one}\n" for one in numbers),
            },
        )
        if part == 1:
            host.check_output(disturbance)
    host.check_output("systemctl start victoria-logs.service")
    lines = Counter(one["_msg"] for one in stored(host, word, 3 * many))
    assert set(lines) == {f"{word} {kind} {one}" for kind in ("unit", "file", "container") for one in range(many)}
    # What was under way when it was killed is sent again: a batch at most.
    assert lines.total() - 3 * many <= 500


def test_the_first_time_it_begins_at_the_end_of_the_journal(host: Host) -> None:
    word = mark()
    host.check_output("systemctl stop syslog-ng.service")
    write(host, {"shop-web-1": f"{word} before it came\n"})
    host.check_output("journalctl --sync")
    host.check_output("find /var/lib/syslog-ng -mindepth 1 -delete")
    host.check_output("systemctl start syslog-ng.service")
    lines = [f"{word} {when}" for when in ("at first", "after a restart")]
    for number, line in enumerate(lines, 1):
        write(host, {"shop-web-1": f"{line}\n"})
        assert {one["_msg"] for one in stored(host, word, number)} == set(lines[:number])
        host.check_output("systemctl restart syslog-ng.service")
    # What is wrongly sent at the last one would stand before this.
    behind = mark()
    write(host, {"shop-web-1": f"{behind}\n"})
    stored(host, behind, 1)
    assert {one["_msg"] for one in stored(host, word, 2)} == set(lines)


def test_the_journal_is_read_wherever_it_is(host: Host) -> None:
    """In new files, in memory, and on a disk that had no place for it when syslog-ng started."""
    place = "/var/log/journal"
    there = f"timeout 30 sh -c 'until ls {place}/*/*; do sleep 0.1; done'"
    for move in (
        "journalctl --rotate",
        "journalctl --relinquish-var",
        "journalctl --flush",
        f"rm -r {place} && systemctl restart systemd-journald.service syslog-ng.service",
        # journald goes there with the next line, not at once.
        f"mkdir {place} && systemd-tmpfiles --create --prefix {place} && journalctl --flush && logger on && {there}",
        "journalctl --rotate --vacuum-time=1s",
    ):
        word = mark()
        host.check_output(move)
        write(host, {WORKER: f"{word} unit\n", "shop-web-1": f"{word} container\n"})
        assert {one["_msg"] for one in stored(host, word, 2)} == {f"{word} unit", f"{word} container"}, move


def test_the_path_is_proven_and_told(host: Host) -> None:
    began = time.time()
    # A busy machine may need longer for one of them.
    assert any(figures(host)[FOUND] > began - 1 for _attempt in range(3))
    assert host.file(FIGURES).mode == 0o644
    said = host.check_output("journalctl --unit production-logs.service --output cat --lines 5")
    assert "log pipeline proof" in said
    assert host.service("production-logs.timer").is_enabled
    assert host.service("production-logs.timer").is_running


def test_what_nobody_declares_is_shipped_where_everything_is(host: Host) -> None:
    word = mark()
    write(host, {"other-1": f"{word} before\n", "shop-web-1": f"{word} behind it\n"})
    stored(host, f"{word} behind", 1)
    assert applied(host, SETTINGS | {"log_shipper_everything": True}).code == 0
    write(host, {"other-1": f"{word} then\n"})
    (one,) = stored(host, f"{word} container:other", 1)
    assert (one["_msg"], one["job"], one["container"]) == (f"{word} then", "journal", "other-1")
    assert applied(host, SETTINGS).code == 0


def test_it_may_do_little_on_the_host_and_units_may_log_more(host: Host) -> None:
    for unit in ("syslog-ng.service", "production-logs.service", "production-logs-journal.service"):
        judged = host.check_output("systemd-analyze security --no-pager %s | tail -n 1", unit)
        assert float(judged.split("level for")[1].split()[1]) <= 3.0, judged
    shown = host.check_output("systemctl show --property MemoryMax,NRestarts syslog-ng.service")
    assert f"MemoryMax={200 * 1024**2}" in shown
    host.check_output("systemctl restart worker.service")
    limits = host.check_output("find /run/systemd/units -name 'log-rate-limit-*:worker.service' -printf '%f=%l '")
    assert set(limits.split()) == {
        "log-rate-limit-burst:worker.service=12345",
        "log-rate-limit-interval:worker.service=10000000",
    }
    assert not host.file("/etc/systemd/system/other.service.d/log-rate.conf").exists


def test_secrets_are_not_lying_about(host: Host) -> None:
    for path in ("/etc/syslog-ng/syslog-ng.conf", "/etc/production-logs.json"):
        assert (host.file(path).mode, host.file(path).user) == (0o600, "root")
    assert "canary" not in host.check_output("ps -eo args")


def test_what_syslog_ng_does_not_take_is_never_activated(host: Host) -> None:
    before = running(host)
    wrong = deepcopy(SETTINGS)
    # Python knows this one, and no version of PCRE does.
    wrong["log_shipper_scrub"].append({"name": "wrong", "pattern": "(?u:x)y", "replacement": "z"})
    refused = applied(host, wrong)
    assert "The former configuration is back" in refused.output, refused.output
    assert running(host) == before


def running(host: Host) -> Sequence[str]:
    process = host.check_output("systemctl show --value --property MainPID syslog-ng.service")
    return process, host.check_output("sha256sum /etc/syslog-ng/syslog-ng.conf")
