# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Expressions of crontab(5): when they run, how far apart, and what systemd is told in their place."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess

import pytest
from ansible_collections.fushuma.production.plugins.plugin_utils.cron import NICKNAMES, parsed
from hypothesis import given
from hypothesis import strategies as st

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("expression", "shortest", "longest"),
    [
        ("17 2 * * *", DAY, DAY),
        ("* * * * *", 60, 60),
        ("*/7 * * * *", 4 * 60, 7 * 60),
        ("0 */6 * * *", 6 * HOUR, 6 * HOUR),
        ("0 8-18/2 * * *", 2 * HOUR, 14 * HOUR),
        ("30 1,13 * * *", 12 * HOUR, 12 * HOUR),
        ("0 3 * * 1-5", DAY, 3 * DAY),
        ("0 3 * * sun", 7 * DAY, 7 * DAY),
        ("0 3 * * 7", 7 * DAY, 7 * DAY),
        ("0 3 * * 0,7", 7 * DAY, 7 * DAY),
        ("5 4 1 * *", 28 * DAY, 31 * DAY),
        ("5 4 31 * *", 31 * DAY, 61 * DAY),
        ("5 4 1 JAN *", 365 * DAY, 366 * DAY),
        ("0 0 29 2 *", 1461 * DAY, 1461 * DAY),
        # Neither begins with a star: the first of a month counts, and Mondays do.
        ("0 0 1 * 1", DAY, 7 * DAY),
        # One begins with a star: Mondays whose date is odd.
        ("0 0 */2 * 1", 7 * DAY, 21 * DAY),
        *[(name, *parsed(same).gaps()) for name, same in NICKNAMES.items()],
    ],
)
def test_gaps(expression: str, shortest: int, longest: int) -> None:
    assert parsed(expression).gaps() == (shortest, longest)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "it has 0 fields in place of five (minute, hour, day, month, day of the week)"),
        ("17 2 * *", "it has 4 fields"),
        ("0 17 2 * * *", "it has 6 fields"),
        ("60 2 * * *", '"60" is no minute, which goes from 0 to 59'),
        ("0 24 * * *", '"24" is no hour, which goes from 0 to 23'),
        ("0 2 0 * *", '"0" is no day of the month, which goes from 1 to 31'),
        ("0 2 * 13 *", '"13" is no month, which goes from 1 to 12, or one name such as Feb'),
        ("0 2 * * 8", '"8" is no day of the week, which goes from 0 to 7, or one name such as Mon'),
        ("0 2 * * mon-fri", '"mon" is no day of the week'),
        ("0 2 * * mon,fri", '"mon" is no day of the week'),
        ("0 2 * * day", '"day" is no day of the week'),
        ("-5 2 * * *", '"" is no minute'),
        ("0 22-2 * * *", '"22-2" for the hour ends before it begins'),
        ("5/10 2 * * *", '"5/10" for the minute has a step, and cron(8) takes one after a range or *'),
        ("*/0 2 * * *", '"*/0" for the minute has a step that is no number from 1 on'),
        ("*/x 2 * * *", '"*/x" for the minute has a step that is no number from 1 on'),
        ("1,,2 2 * * *", '"" is no minute'),
        ("\u0661 2 * * *", "is no minute"),
        ("0 0 30 2 *", "there is no such day"),
        ("0 0 31 2,4,6,9,11 *", "there is no such day"),
        ("0 0 29 2 */7", "there is no such day, or one in eight years"),
        ("@reboot", "the names that can be had are @yearly"),
        ("daily", "it has 1 fields"),
    ],
)
def test_what_is_no_expression(expression: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parsed(expression)


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("17 2 * * *", ["*-*-* 02:17:00"]),
        ("*/30 * * * *", ["*-*-* *:00,30:00"]),
        ("0 3 * * 0", ["Sun *-*-* 03:00:00"]),
        ("0 3 1 1-3 *", ["*-01,02,03-01 03:00:00"]),
        ("0 3 1,15 * mon", ["Mon *-*-* 03:00:00", "*-*-01,15 03:00:00"]),
        ("0 3 */10 * 5-6", ["Fri,Sat *-*-01,11,21,31 03:00:00"]),
    ],
)
def test_the_same_for_systemd(expression: str, wanted: list[str]) -> None:
    assert parsed(expression).calendars() == wanted


def next_by_systemd(calendar: str, after: datetime.datetime) -> datetime.datetime:
    """The next time as systemd itself reckons it."""
    asked = ["systemd-analyze", "calendar", f"--base-time={after:%Y-%m-%d %H:%M:%S} UTC", calendar]
    told = subprocess.run(asked, capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin"})
    line = next(one for one in told.stdout.splitlines() if "Next elapse:" in one)
    return datetime.datetime.strptime(" ".join(line.split()[3:5]), "%Y-%m-%d %H:%M:%S")


def next_by_cron(expression: str, after: datetime.datetime) -> datetime.datetime:
    """The next time as crontab(5) has it, minute by minute."""
    cron, now = parsed(expression), after
    while True:
        now += datetime.timedelta(minutes=1)
        if cron.runs_on(now.date()) and now.hour in cron.hours and now.minute in cron.minutes:
            return now


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="this machine has no systemd-analyze")
@pytest.mark.parametrize(
    "expression", ["17 2 * * *", "*/7 8-18/3 * * 1-5", "0 3 1,15 * mon", "5 4 */10 2,3 6", "@weekly"]
)
def test_systemd_reads_it_as_cron_does(expression: str) -> None:
    at = datetime.datetime(2026, 1, 30, 23, 58)
    for _each in range(4):
        following = min(next_by_systemd(one, at) for one in parsed(expression).calendars())
        assert following == next_by_cron(expression, at)
        at = following


@given(
    st.tuples(
        *(
            st.one_of(st.just("*"), st.integers(first, last).map(str), st.integers(1, 9).map("*/{}".format))
            for first, last in ((0, 59), (0, 23), (1, 28), (1, 12), (0, 7))
        )
    )
)
def test_whatever_can_be_written_runs_some_day(fields: tuple[str, ...]) -> None:
    cron = parsed(" ".join(fields))
    shortest, longest = cron.gaps()
    assert 60 <= shortest <= longest
    assert cron.calendars()
