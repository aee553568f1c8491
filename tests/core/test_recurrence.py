"""Rules and their ticks: what is refused, that no tick is missed or comes twice, and what the clock changes do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowrun.core.recurrence import EPOCH, NAMES, Recurrence, recurrence
from flowrun.errors import ConfigurationError

ZONES = ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC), datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC), datetime(2026, 4, 4, 15, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    datetime(2026, 2, 15, 2, tzinfo=UTC), datetime(2026, 3, 22, 2, tzinfo=UTC),
]  # fmt: skip
"""When the clocks of some of these zones are changed."""


def number(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        one.map(str),
        st.tuples(one, one).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        st.integers(1, high or 1).map(lambda step: f"*/{step}"),
        st.lists(one, min_size=2, max_size=3).map(lambda many: ",".join(map(str, many))),
    )


rules = st.tuples(number(0, 59), number(0, 23), number(1, 28), st.just("*"), number(0, 6)).map(" ".join)
moments = st.builds(
    lambda change, minutes, micro: change + timedelta(minutes=minutes, microseconds=micro),
    st.sampled_from(CHANGES),
    st.integers(-2_000, 2_000),
    st.sampled_from([0, 1, 999_999]),
)


def by_looking(rule: Recurrence, begin: datetime, end: datetime) -> list[datetime]:
    """The ticks of a rule without seconds, found by looking at the clock on the wall in every single minute."""
    zone = ZoneInfo(rule.timezone)
    sim = CronSim(rule.cron, EPOCH)

    def ticks(wall: datetime) -> bool:
        return wall.minute in sim.minutes and wall.hour in sim.hours and sim.match_day(wall.date())

    def shown(moment: datetime) -> datetime:
        return moment.astimezone(zone).replace(tzinfo=None, fold=0)

    minute = timedelta(minutes=1)
    first = begin.replace(second=0, microsecond=0)
    moments = [first + number * minute for number in range(-90, int((end - first) / minute) + 90)]
    walls = [shown(moment) for moment in moments]
    if sim.hours == set(range(24)):
        return [moment for moment, wall in zip(moments, walls, strict=True) if begin < moment <= end and ticks(wall)]
    found, latest = [], walls[0]
    for number in range(1, len(moments)):
        # All that the clock shows for the first time in this minute: one time, many where it jumps, none where it goes back.
        fresh = []
        wall = latest + minute
        latest = max(latest, walls[number])
        while wall <= walls[number]:
            fresh.append(wall)
            wall += minute
        if begin < moments[number] <= end and any(map(ticks, fresh)):
            found.append(moments[number])
    return found


@settings(max_examples=60, deadline=None)
@given(rules, st.sampled_from(ZONES), moments)
@example("30 2 * * *", "Europe/Paris", datetime(2026, 3, 28, 12, tzinfo=UTC))
@example("0,30 2,3 * * *", "Europe/Paris", datetime(2026, 3, 28, 12, tzinfo=UTC))
@example("*/30 * * * *", "Australia/Lord_Howe", datetime(2026, 4, 4, 12, tzinfo=UTC))
@example("15 2 * * *", "Europe/Paris", datetime(2026, 10, 25, 1, 5, tzinfo=UTC))
def test_ticks_are_those_that_a_look_at_every_minute_finds(cron: str, zone: str, begin: datetime) -> None:
    rule = recurrence(cron, timezone=zone)
    end = begin + timedelta(hours=30)
    ticks = []
    tick = rule.after(begin)
    while tick is not None and tick <= end:
        ticks.append(tick)
        tick = rule.after(tick)
    assert all(one < other for one, other in pairwise(ticks))
    assert ticks == by_looking(rule, begin, end)
    assert rule.between(begin, end, 10_000) == ticks
    assert rule.between(begin, end, 3) == ticks[-3:]
    # Whoever looks at another moment finds the same ticks.
    for early, late in pairwise(ticks[:50]):
        assert rule.after(early + (late - early) / 2) == late


@settings(max_examples=60, deadline=None)
@given(number(0, 59), rules, st.sampled_from(ZONES), moments)
def test_ticks_with_seconds_grow(second: str, cron: str, zone: str, begin: datetime) -> None:
    rule = recurrence(f"{second} {cron}", timezone=zone)
    tick, ticks = rule.after(begin), []
    while tick is not None and len(ticks) < 200:
        ticks.append(tick)
        tick = rule.after(tick)
    assert all(one < other for one, other in pairwise([begin, *ticks]))
    assert rule.between(begin, ticks[-1], len(ticks)) == ticks


@settings(max_examples=200, deadline=None)
@given(st.floats(0.1, 1e8), moments, st.none() | moments)
def test_every_is_a_grid_that_nothing_moves(every: float, moment: datetime, start: datetime | None) -> None:
    rule = recurrence(every=every, start=start)
    tick = rule.after(moment)
    assert tick is not None
    assert tick > moment
    step = timedelta(microseconds=round(every * 1e6))
    assert (tick - (start or EPOCH)) % step == timedelta()
    assert tick == start or tick - step <= moment
    assert rule.after(tick) == tick + step


def local(rule: Recurrence, begin: datetime, count: int) -> list[str]:
    shown = []
    for _ in range(count):
        begin = rule.after(begin)
        shown.append(begin.astimezone(ZoneInfo(rule.timezone)).strftime("%d %H:%M:%S %z"))
    return shown


SPRING, AUTUMN = datetime(2026, 3, 28, 0, 30, tzinfo=UTC), datetime(2026, 10, 24, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "begin", "shown"),
    [
        # 2:30 is left out on the 29th of March: the tick comes when that hour would have begun.
        ("30 2 * * *", SPRING, ["28 02:30:00 +0100", "29 03:00:00 +0200", "30 02:30:00 +0200"]),
        # Several of them are one.
        ("0,30 2,3 * * *", SPRING + timedelta(hours=20), ["29 03:00:00 +0200", "29 03:30:00 +0200"]),
        ("15 30 2 * * *", SPRING + timedelta(hours=20), ["29 03:00:00 +0200", "30 02:30:15 +0200"]),
        # It comes twice on the 25th of October: the tick does not.
        ("30 2 * * *", AUTUMN, ["25 02:30:00 +0200", "26 02:30:00 +0100"]),
        ("15 30 2 * * *", AUTUMN + timedelta(hours=20), ["25 02:30:15 +0200", "26 02:30:15 +0100"]),
        # What goes on in every hour goes on.
        ("30 * * * *", SPRING + timedelta(hours=23), ["29 01:30:00 +0100", "29 03:30:00 +0200"]),
        ("30 * * * *", AUTUMN + timedelta(hours=23), ["25 02:30:00 +0200", "25 02:30:00 +0100", "25 03:30:00 +0100"]),
        # A rule for some of the hours does not.
        ("0 */2 * * *", SPRING + timedelta(hours=23), ["29 03:00:00 +0200", "29 04:00:00 +0200"]),
    ],
)
def test_what_the_clock_changes_do(cron: str, begin: datetime, shown: list[str]) -> None:
    assert local(recurrence(cron, timezone="Europe/Paris"), begin, len(shown)) == shown


def test_start_and_end() -> None:
    start, end = datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 27, tzinfo=UTC)
    assert recurrence(every=10, start=start, end=end).between(EPOCH, EPOCH.replace(year=2030), 9) == [
        start + timedelta(seconds=seconds) for seconds in (0, 10, 20)
    ]
    rule = recurrence("0 0 * * *", start=start, end=end + timedelta(days=1))
    assert rule.after(EPOCH) == datetime(2026, 1, 2, tzinfo=UTC)
    assert rule.after(datetime(2026, 1, 2, tzinfo=UTC)) is None
    assert recurrence("0 0 29 2 *").after(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2028, 2, 29, tzinfo=UTC)
    assert recurrence("0 0 * * *").after(datetime(9999, 12, 31, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    assert recurrence(name.upper()).cron == NAMES[name]


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("", "has not 5 fields"),
        ("* * * *", "has not 5 fields"),
        ("* * * * * * *", "has not 5 fields"),
        ("@reboot", "has not 5 fields"),
        ("ü * * * *", "has not 5 fields"),
        ("* * * * *; drop", "has not 5 fields"),
        (5, "has not 5 fields"),
        ("60 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("* * 0 * *", "bad day-of-month"),
        ("* * * 13 *", "bad month"),
        ("* * * * 8", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("5-1 * * * *", "bad minute"),
        ("1#2/3 * * * *", "bad minute"),
        ("* * * * 1#2/3", ""),
        ("0 0 30 2 *", "never comes"),
        ("0 0 0 31 4,6 *", "never comes"),
    ],
)
def test_what_is_no_rule(cron: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"schedule 'x'.*{said}"):
        recurrence(cron, where="schedule 'x'")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789*/,-#LWMONFEB ", min_size=9, max_size=24))
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    try:
        rule = recurrence(text)
    except ConfigurationError:
        return
    assert rule.after(EPOCH) > EPOCH
    assert rule.words()


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "a cron rule or every="),
        ({"cron": "* * * * *", "every": 5}, "a cron rule or every="),
        ({"every": 0.01}, "from 0.1 to"),
        ({"every": True}, "from 0.1 to"),
        ({"every": float("nan")}, "from 0.1 to"),
        ({"every": "5"}, "from 0.1 to"),
        ({"every": 5, "timezone": "Europe/Paris"}, "goes with a cron rule"),
        ({"cron": "* * * * *", "timezone": "Europe/Atlantis"}, "'Europe/Atlantis'"),
        ({"cron": "* * * * *", "timezone": "../etc/passwd"}, "timezone="),
        ({"cron": "* * * * *", "timezone": 1}, "timezone="),
        ({"every": 5, "start": NOON.replace(tzinfo=None)}, "start= must be a datetime with a time zone"),
        ({"every": 5, "start": NOON, "end": NOON - timedelta(hours=1)}, "no tick between"),
        ({"cron": "0 0 * * *", "start": NOON, "end": NOON + timedelta(hours=1)}, "no tick between"),
    ],
)
def test_what_else_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        recurrence(**given)


def test_a_start_or_an_end_at_the_ends_of_time_is_taken_or_refused_by_its_name() -> None:
    for moment in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        for cron, every in (("0 3 * * *", None), (None, 60.0)):
            recurrence(cron, every=every, start=moment).after(datetime(2026, 1, 1, tzinfo=UTC))
    recurrence("0 3 * * *", start=datetime.min.replace(tzinfo=UTC), end=datetime.max.replace(tzinfo=UTC))
    for moment, hours in ((datetime.min.replace(tzinfo=UTC), 14), (datetime.max.replace(tzinfo=UTC), -14)):
        beyond = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
        for name in ("start", "end"):
            with pytest.raises(ConfigurationError, match=f"{name}= must lie between the years 1 and 9999"):
                recurrence("0 3 * * *", **{name: beyond})
