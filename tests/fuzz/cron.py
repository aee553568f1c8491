"""Rules and their ticks: refused, or one after the other, each of them one that the rule names, and all of these."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from time import monotonic
from typing import Any

from cronsim import CronSim
from hypothesis import strategies as st

from flowrun.core.recurrence import EPOCH, NAMES, Recurrence, recurrence
from flowrun.errors import ConfigurationError
from tests.core.test_recurrence import CHANGES, ZONES, by_looking, moments

LONGEST = 5.0
"""Seconds that no question about a rule may take."""

anything = st.text(st.sampled_from("0123456789*/,-# LWlwMONFRIjan@?"), max_size=30) | st.text(max_size=12)


def part(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high + 1)
    item = st.one_of(
        st.just("*"), one.map(str), st.tuples(one, one).map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.tuples(one, st.integers(0, high + 2)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        st.tuples(one, one, st.integers(0, 9)).map(lambda three: f"{three[0]}-{three[1]}/{three[2]}"),
        st.integers(0, high + 2).map(lambda step: f"*/{step}"),
    )  # fmt: skip
    return st.lists(item, min_size=1, max_size=2).map(",".join)


days = part(1, 31) | st.sampled_from(["L", "LW", "31", "29", "*", "W"])
months = part(1, 12) | st.sampled_from(["jan", "FEB", "2", "*", "jan-mar", "2,4"])
weekdays = part(0, 7) | st.sampled_from(["mon", "SUN", "1#5", "5L", "7", "*", "mon-fri", "1#6"])
written = st.builds(
    lambda second, *fields: " ".join([*([second] if second else []), *fields]),
    st.just("") | part(0, 59), part(0, 59), part(0, 23), days, months, weekdays,
)  # fmt: skip
steps = st.floats() | st.integers(-1, 10**10) | st.sampled_from([0.1, 0.05, 1e-9, True, "5", None])
zones = st.sampled_from(
    [*ZONES, "Nowhere/Town", "", "../etc/passwd", "Antarctica/Troll", "Pacific/Apia", "Asia/Pyongyang", "\x00"]
)
begins = moments | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001

VALUES = st.tuples(
    st.one_of(written, written, anything, st.sampled_from(list(NAMES)), st.none()), steps, zones, begins, st.booleans()
)


def check(value: tuple[Any, ...]) -> None:
    cron, every, zone, begin, bounded = value
    began = monotonic()
    try:
        rule = recurrence(
            cron,
            every=None if cron is not None else every,
            timezone=zone if cron is not None else "UTC",
            start=begin if bounded else None,
            end=begin + timedelta(days=900) if bounded and begin.year < 9990 else None,
        )
    except ConfigurationError as error:
        assert len(str(error)) < 600
        return
    assert rule.words()
    ticks = list(islice(_ticks(rule, begin), 12))
    assert monotonic() - began < LONGEST, "it takes too long"
    assert all(one < two for one, two in zip([begin, *ticks], ticks, strict=False))
    assert rule.end is None or all(tick <= rule.end for tick in ticks)
    if ticks:
        _between(rule, begin, ticks)
    _naive(rule, begin, ticks)


def _ticks(rule: Recurrence, moment: datetime) -> Any:
    tick = rule.after(moment)
    while tick is not None:
        yield tick
        tick = rule.after(tick)


def _between(rule: Recurrence, begin: datetime, ticks: list[datetime]) -> None:
    last = ticks[-1]
    if last - begin < timedelta(days=60):
        assert rule.between(begin, last, len(ticks)) == ticks
        assert rule.between(begin, last, 1) == ticks[-1:]
    middle = begin + (ticks[0] - begin) / 2
    if begin < middle < ticks[0]:
        assert rule.after(middle) == ticks[0]


def _naive(rule: Recurrence, begin: datetime, ticks: list[datetime]) -> None:
    """The same found by looking at the clock in every minute of a day and a half, where that is little work."""
    if rule.cron is None or len(rule.cron.split()) != 5 or rule.start is not None or not 1950 < begin.year < 2037:
        return
    if rule.timezone != "UTC" and not any(abs(begin - change) < timedelta(days=3) for change in CHANGES):
        return
    if len(CronSim(rule.cron, EPOCH).months) < 12:
        return  # it does not look at months
    end = begin + timedelta(hours=30)
    wanted = by_looking(rule, begin, end)[: len(ticks)]
    assert [tick for tick in ticks if tick <= end][: len(wanted)] == wanted
