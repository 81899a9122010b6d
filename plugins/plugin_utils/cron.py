# Copyright: fushuma.production contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Times as crontab(5) of Debian has them: read, refused in words, and said as systemd.time(7) has them."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

MINUTE = 60  # seconds
DAY = 24 * 60  # minutes
WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# From a leap year to the next but one: every date that there is, on every day of the week but a few.
FIRST, LAST = datetime.date(2024, 1, 1), datetime.date(2032, 12, 31)


@dataclass(frozen=True)
class _Field:
    name: str
    first: int
    last: int
    names: Sequence[str] = ()  # the first of them stands for ``first``


FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, MONTHS),
    _Field("day of the week", 0, 7, WEEKDAYS),
)


@dataclass(frozen=True)
class Cron:
    """When something runs. ``weekdays`` go from 0, which is Sunday, to 6.

    either: a day counts where one of its two fields says so, not both of them. cron(8) has it so where neither of the
    two begins with a star.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def runs_on(self, day: datetime.date) -> bool:
        """Whether it runs at all on that day."""
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (of_month or of_week if self.either else of_month and of_week)

    def gaps(self) -> tuple[int, int]:
        """The seconds between one run and the next: the fewest and the most that there ever are.

        By the clock on the wall, without the hour of summer time. Raises ValueError where it never runs.
        """
        times = sorted(hour * 60 + minute for hour in self.hours for minute in self.minutes)
        all_days = (FIRST + datetime.timedelta(days=number) for number in range((LAST - FIRST).days + 1))
        days = [day for day in all_days if self.runs_on(day)]
        if len(days) < 2:
            raise ValueError("there is no such day, or one in eight years")
        within = {after - before for before, after in itertools.pairwise(times)}
        between = {(after - before).days * DAY + times[0] - times[-1] for before, after in itertools.pairwise(days)}
        found = within | between
        return min(found) * MINUTE, max(found) * MINUTE

    def calendars(self) -> list[str]:
        """The same for OnCalendar= of systemd.timer(5): one line, or two of which either counts."""
        time = f"{_listed(self.hours, 24)}:{_listed(self.minutes, 60)}:00"
        months, days = _listed(self.months, 12), _listed(self.days, 31)
        weekdays = "" if len(self.weekdays) == 7 else ",".join(WEEKDAYS[one] for one in sorted(self.weekdays)) + " "
        if self.either:
            return [f"{weekdays}*-{months}-* {time}", f"*-{months}-{days} {time}"]
        return [f"{weekdays}*-{months}-{days} {time}"]


def _listed(values: Collection[int], whole: int) -> str:
    return "*" if len(values) == whole else ",".join(f"{one:02}" for one in sorted(values))


@lru_cache
def parsed(expression: str) -> Cron:
    """An expression of five fields, or one of the names such as ``@daily``.

    Raises ValueError with a clause that says why it is none, or that it never runs.
    """
    fields = NICKNAMES.get(expression, expression).split()
    if expression.startswith("@") and expression not in NICKNAMES:
        raise ValueError(f"the names that can be had are {', '.join(NICKNAMES)}")
    if len(fields) != len(FIELDS):
        raise ValueError(f"it has {len(fields)} fields in place of five (minute, hour, day, month, day of the week)")
    minutes, hours, days, months, weekdays = (
        frozenset(_values(text, field)) for text, field in zip(fields, FIELDS, strict=True)
    )
    either = not (fields[2].startswith("*") or fields[4].startswith("*"))
    cron = Cron(minutes, hours, days, months, frozenset(one % 7 for one in weekdays), either)
    cron.gaps()
    return cron


def _values(text: str, field: _Field) -> Iterator[int]:
    for part in text.split(","):
        whole, slash, step = part.partition("/")
        low, dash, high = whole.partition("-")
        if whole == "*":
            first, last = field.first, field.last
        elif dash:
            first, last = _number(low, field), _number(high, field)
        else:
            first = last = _value(low, field, alone=part == text)
            if slash:
                raise ValueError(f'"{part}" for the {field.name} has a step, and cron(8) takes one after a range or *')
        if first > last:
            raise ValueError(f'"{part}" for the {field.name} ends before it begins')
        if slash and not (step.isdecimal() and int(step)):
            raise ValueError(f'"{part}" for the {field.name} has a step that is no number from 1 on')
        yield from range(first, last + 1, int(step) if slash else 1)


def _value(text: str, field: _Field, *, alone: bool) -> int:
    """A number, or a name that stands alone: cron(8) promises none in lists and ranges."""
    names = [name.lower() for name in field.names]
    if alone and text.lower() in names:
        return field.first + names.index(text.lower())
    return _number(text, field)


def _number(text: str, field: _Field) -> int:
    if not (text.isascii() and text.isdecimal()) or not field.first <= int(text) <= field.last:
        named = f", or one name such as {field.names[1]}" if field.names else ""
        raise ValueError(f'"{text}" is no {field.name}, which goes from {field.first} to {field.last}{named}')
    return int(text)
