"""What a tick means: by examples, and in random timelines with slow runs, late looks and downtimes."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.core.recurrence import EPOCH, Recurrence
from flowrun.core.ticking import BACKLOG, CATCHUPS, ON_TIME, OVERLAPS, Standing, Verdict, decide

TEN = Recurrence(every=10_000_000)


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def look(
    overlap="allow", catchup="none", *, next_at=0, now=0, running=False, held=False, most=100, rule=TEN
) -> Verdict:
    return decide(rule, Standing(at(next_at), overlap, catchup, running, held), at(now), most)


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("catchup", CATCHUPS)
def test_a_tick_on_time(overlap, catchup) -> None:
    assert look(overlap, catchup, next_at=20, now=20.003) == Verdict([at(20)], 0, at(30))


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_a_clock_that_was_set_back(overlap) -> None:
    assert look(overlap, "all", next_at=20, now=15, running=True, held=True) == Verdict((), 0, at(20))


def test_while_the_run_before_has_not_ended() -> None:
    assert look("allow", now=1, running=True) == Verdict([at(0)], 0, at(10))
    assert look("skip", now=1, running=True) == Verdict((), 1, at(10))
    assert look("queue", now=1, running=True) == Verdict((), 0, at(0), waits=True)
    assert look("cancel", now=1, running=True) == Verdict([at(0)], 0, at(10), stop=True)


def test_several_at_once_come_one_after_the_other() -> None:
    assert look("allow", now=25) == Verdict([at(0), at(10), at(20)], 0, at(30))
    assert look("allow", now=25, most=2) == Verdict([at(0), at(10)], 0, at(20))
    assert look("skip", now=25) == Verdict([at(0)], 2, at(30))
    assert look("queue", now=25) == Verdict([at(0)], 0, at(10), waits=True)
    assert look("cancel", now=25) == Verdict([at(20)], 2, at(30))


def test_after_a_downtime() -> None:
    assert look("allow", "none", now=3599) == Verdict([at(3570), at(3580), at(3590)], 0, at(3600))
    hourly = Recurrence(every=3_600_000_000)
    assert look("allow", "none", now=9000, rule=hourly) == Verdict((), 0, at(10800))
    assert look("allow", "last", now=9000, rule=hourly) == Verdict([at(7200)], 0, at(10800))
    assert look("allow", "all", now=9000, rule=hourly) == Verdict([at(0), at(3600), at(7200)], 0, at(10800))
    assert look("queue", "none", now=9000, rule=hourly, held=True) == Verdict([at(0)], 0, at(3600), waits=True)
    many = look("allow", "all", now=1e6, most=10**6)
    assert len(many.ticks) == BACKLOG
    assert many.ticks[-1] == at(1e6)


def test_the_last_tick() -> None:
    ending = Recurrence(every=10_000_000, end=at(15))
    assert look("queue", "all", now=100, rule=ending) == Verdict([at(0)], 0, at(10), waits=True)
    assert look("queue", "all", next_at=10, now=100, rule=ending, held=True) == Verdict([at(10)], 0, None)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(OVERLAPS),
    st.sampled_from(CATCHUPS),
    st.lists(st.tuples(st.floats(0.001, 45.0), st.floats(0.0, 60.0)), min_size=5, max_size=60),
)
def test_in_any_timeline(overlap, catchup, looks) -> None:
    """Looks at random moments; each run lasts some time. (A cancelled run ends at once or, one time in two, later.)"""
    now, next_at, held = 0.0, at(0), False
    runs: list[tuple[datetime, float, float]] = []
    skipped, late, last_look = 0, False, 0.0
    for pause, lasting in looks:
        now += pause
        late |= now - last_look > ON_TIME.total_seconds() - 10
        last_look = now
        running = any(end > now for _, _, end in runs)
        if next_at > at(now) or (held and running):
            continue
        verdict = decide(TEN, Standing(next_at, overlap, catchup, running, held), at(now), 3)
        ticks, next_at, held = list(verdict.ticks), verdict.next_at, verdict.waits
        if verdict.stop:
            if lasting > 30:
                next_at, held, ticks = ticks[-1], True, []
            runs = [(tick, begin, min(end, now + lasting / 10 if held else now)) for tick, begin, end in runs]
        skipped += verdict.skipped
        runs += [(tick, now, now + lasting) for tick in ticks]
        if overlap != "allow":
            assert sum(begin <= now < end for _, begin, end in runs) <= 1
        assert next_at > max([tick for tick, _, _ in runs], default=at(-1))
    taken = [tick for tick, _, _ in runs]
    assert all(one < other for one, other in pairwise(taken))
    assert max(Counter(taken).values(), default=1) == 1
    assert all(tick <= at(begin) for tick, begin, _ in runs)
    over = int((next_at - EPOCH) / timedelta(seconds=10))
    if catchup == "all" or not late:
        assert len(taken) + skipped == over
