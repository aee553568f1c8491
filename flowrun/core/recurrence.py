"""When a schedule ticks: a cron rule in a time zone, or every so many seconds.

A cron rule that says at which hours goes by the clock on the wall: each of its times comes once a day. One that falls
into the hour that is left out in spring comes when that hour would have begun; one in the hour that comes twice in
autumn comes the first time only. A rule for all hours ("every 15 minutes") goes by real time: it goes on through both.

Ticks are moments in UTC. They depend on nothing but the rule, so any process finds the same ones, and a restart moves
none.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from math import isfinite
from typing import Any, Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from flowrun.errors import ConfigurationError

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SHORTEST: Final = 0.1
LONGEST: Final = 10 * 366 * 86_400.0
"""Seconds between two ticks of ``every=``."""

NAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Rules that have a name."""

_RULE = re.compile(r"[0-9A-Za-z*/,#-]+( [0-9A-Za-z*/,#-]+){4,5}")
_MOMENT = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A rule: ``cron``, or ``every`` so many microseconds. Made by :func:`recurrence`, which checks it.

    >>> rule = recurrence("0 3 * * *", timezone="Europe/Paris")
    >>> rule.after(datetime(2026, 3, 28, 12, tzinfo=UTC)).isoformat()
    '2026-03-29T01:00:00+00:00'
    """

    cron: str | None = None
    every: int | None = None
    timezone: str = "UTC"
    start: datetime | None = None
    """No tick before; ``every`` counts from here (else from the beginning of 1970, UTC)."""
    end: datetime | None = None
    """No tick after."""

    def after(self, moment: datetime) -> datetime | None:
        """The first tick after ``moment``; None: there is none any more."""
        if self.start is not None and moment < self.start:
            moment = _just_before(self.start)
        try:
            tick = self._every_after(moment) if self.cron is None else _cron_after(self.cron, self._zone(), moment)
        except (OverflowError, ValueError):  # beyond the year 9999
            return None
        return None if tick is None or (self.end is not None and tick > self.end) else tick

    def between(self, after: datetime, until: datetime, most: int) -> list[datetime]:
        """The ticks after ``after`` and not after ``until``, or the last ``most`` of them.

        Rules that tick each second for a year are no harder than others: it looks back from ``until``.
        """
        width = timedelta(minutes=1)
        while True:
            begin = max(after, until - width)
            found: deque[datetime] = deque(maxlen=most)
            tick = self.after(begin)
            while tick is not None and tick <= until:
                found.append(tick)
                tick = self.after(tick)
            if len(found) == most or begin == after:
                return list(found)
            width *= 4

    def words(self) -> str:
        """The rule as people say it.

        >>> recurrence("0 3 * * *", timezone="Europe/Paris").words()
        'At 03:00 every day, Europe/Paris'
        """
        if self.cron is None:
            return f"every {(self.every or 0) / 1e6:g} s"
        said = CronSim(self.cron, EPOCH).explain()
        return said if self.timezone == "UTC" else f"{said}, {self.timezone}"

    def _every_after(self, moment: datetime) -> datetime:
        anchor = self.start or EPOCH
        step = timedelta(microseconds=self.every or 1)
        return anchor + max(0, (moment - anchor) // step + 1) * step

    def _zone(self) -> tzinfo:
        return UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)


def recurrence(
    cron: str | None = None,
    *,
    every: float | None = None,
    timezone: str = "UTC",
    start: datetime | None = None,
    end: datetime | None = None,
    where: str = "the schedule",
) -> Recurrence:
    """A rule as given, checked. Raises ConfigurationError, also for one that never ticks (30 February).

    >>> recurrence("0 0 30 2 *")
    Traceback (most recent call last):
    flowrun.errors.ConfigurationError: the schedule: cron rule '0 0 30 2 *' never comes
    """
    if (cron is None) == (every is None):
        raise ConfigurationError(f"{where} takes a cron rule or every=, one of them")
    for name, moment in (("start", start), ("end", end)):
        if moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
            raise ConfigurationError(f"{where}: {name}= must be a datetime with a time zone; got {moment!r}")
    start = None if start is None else _in_utc(start, f"{where}: start=")
    end = None if end is None else _in_utc(end, f"{where}: end=")
    _check_zone(timezone, where)
    if every is not None:
        if timezone != "UTC":
            raise ConfigurationError(f"{where}: timezone= goes with a cron rule; every= counts seconds")
        rule = Recurrence(None, _microseconds(every, where), "UTC", start, end)
    else:
        rule = Recurrence(_checked(cron, where), None, timezone, start, end)
    if Recurrence(rule.cron, rule.every, rule.timezone).after(EPOCH) is None:
        raise ConfigurationError(f"{where}: cron rule {cron!r} never comes")
    if end is not None and rule.after(_just_before(start or EPOCH)) is None:
        raise ConfigurationError(f"{where} has no tick between its start= and its end=")
    return rule


def _in_utc(moment: datetime, what: str) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ConfigurationError(f"{what} must lie between the years 1 and 9999 in UTC; got {moment!r}") from None


def _just_before(moment: datetime) -> datetime:
    return moment - _MOMENT if moment.replace(tzinfo=None) > datetime.min else moment  # noqa: DTZ901 - compared as it is


def _checked(cron: Any, where: str) -> str:
    text = " ".join(cron.split()) if isinstance(cron, str) else ""
    text = NAMES.get(text.lower(), text)
    shown = f"{where}: cron rule {str(cron)[:100]!r}"
    if len(text) > 200 or not _RULE.fullmatch(text):
        raise ConfigurationError(
            f"{shown} has not 5 fields (minute, hour, day of month, month, day of week), or 6 with the second first, "
            f"and is none of {', '.join(NAMES)}"
        )
    try:
        CronSim(text, EPOCH)
    except CronSimError as error:
        said = str(error)
        if said == "Bad day-of-month" and _is_rule(" ".join([*text.split()[:-2], "*", text.split()[-1]])):
            raise ConfigurationError(f"{shown} never comes") from None
        raise ConfigurationError(f"{shown}: {said[0].lower()}{said[1:]}") from None
    except (ValueError, AssertionError, IndexError):
        raise ConfigurationError(f"{shown} cannot be read") from None
    return text


def _is_rule(text: str) -> bool:
    try:
        CronSim(text, EPOCH)
    except CronSimError:
        return False
    return True


def _check_zone(timezone: Any, where: str) -> None:
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, TypeError, OSError):
        raise ConfigurationError(
            f"{where}: timezone= must be a name as in 'Europe/Paris'; got {str(timezone)[:60]!r}"
        ) from None


def _microseconds(every: Any, where: str) -> int:
    number = isinstance(every, int | float) and not isinstance(every, bool) and isfinite(every)
    if not number or not SHORTEST <= every <= LONGEST:
        raise ConfigurationError(
            f"{where}: every= must be a number of seconds from {SHORTEST:g} to {LONGEST:g}; got {str(every)[:60]}"
        )
    microseconds: int = round(every * 1e6)
    return microseconds


@lru_cache(maxsize=1000)
def _all_hours(cron: str) -> bool:
    """Whether a rule is for all hours, and so goes by real time."""
    return CronSim(cron, EPOCH).hours == set(range(24))


def _cron_after(cron: str, zone: tzinfo, moment: datetime) -> datetime | None:
    if zone is UTC:
        wall = next(_walls(cron, _naive(moment)), None)
        return None if wall is None else wall.replace(tzinfo=UTC)
    return _real_after(cron, zone, moment) if _all_hours(cron) else _wall_after(cron, zone, moment)


def _wall_after(cron: str, zone: tzinfo, moment: datetime) -> datetime | None:
    for wall in _walls(cron, moment.astimezone(zone).replace(tzinfo=None, fold=0)):
        tick = _first_time(wall, zone)
        if tick > moment:
            return tick
    return None


def _real_after(cron: str, zone: tzinfo, moment: datetime) -> datetime | None:
    """Between two changes of the clock, time on the wall is real time: look in one stretch after the other."""
    begin = moment
    while True:
        offset = _offset(begin, zone)
        # Of a later stretch its first moment may be a tick, too.
        wall = next(_walls(cron, _naive(begin) + offset - (timedelta() if begin == moment else _MOMENT)), None)
        if wall is None:
            return None
        tick = wall.replace(tzinfo=UTC) - offset
        change = _change(begin, tick, zone)
        if change is None:
            return tick
        begin = change


def _walls(cron: str, after: datetime) -> Iterator[datetime]:
    """The times on a clock that never changes, after one of them."""
    yield from CronSim(cron, after)


def _first_time(wall: datetime, zone: tzinfo) -> datetime:
    """When the clock shows ``wall`` for the first time; where it never does, when it jumps over it."""
    tick = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if tick.astimezone(zone).replace(tzinfo=None, fold=0) == wall:
        return tick
    return _change(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), tick, zone) or tick


def _change(begin: datetime, until: datetime, zone: tzinfo) -> datetime | None:
    """When the clock is changed first after ``begin`` and not after ``until``, if it is."""
    offset = _offset(begin, zone)
    low = begin.replace(microsecond=0)
    while low < until:
        high = min(low + _DAY, until)
        if _offset(high, zone) != offset:
            while high - low > _SECOND:
                middle = low + ((high - low) / 2 // _SECOND) * _SECOND
                low, high = (middle, high) if _offset(middle, zone) == offset else (low, middle)
            return high
        low = high
    return None


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
