"""Schedules under faults: each tick dispatches once, in its time, and none that is to be made up for is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from flowrun import Flowrun
from tests.chaos import handlers

RULES: dict[str, dict[str, Any]] = {
    "all": {"every": 0.5, "catchup": "all"},
    "cron": {"cron": "* * * * * *", "catchup": "all"},
    "flow": {"every": 2.0, "catchup": "all"},
    "queue": {"every": 1.0, "catchup": "all", "overlap": "queue"},
    "skip": {"every": 0.5, "catchup": "all", "overlap": "skip"},
    "cancel": {"every": 1.5, "overlap": "cancel"},
    "last": {"every": 0.7, "catchup": "last"},
    "none": {"every": 0.9},
}
COMPLETE = ("all", "cron", "flow", "queue")
"""Of these every single tick is dispatched."""
ALONE = ("queue", "skip", "cancel")
"""Of these one run begins after the end of the one before."""
PAUSES = {"skip": 0.6, "cancel": 1.0, "queue": 0.3}
"""Seconds that a run takes, by schedule."""


@dataclass
class Ticked:
    """What there is to know of the schedules of a run."""

    first: dict[str, datetime] = field(default_factory=dict)
    """By schedule, the first tick there had to be ..."""
    end: dict[str, datetime] = field(default_factory=dict)
    """... and the first one there had not to be any more."""
    dispatched: dict[str, int] = field(default_factory=dict)
    runs: Sequence[Any] = ()
    """schedule, tick, id of the job or flow, created_at, started_at, finished_at."""


async def begin(dsn: str) -> Ticked:
    """Put the schedules."""
    ticked = Ticked()
    async with Flowrun(dsn, pool_size=1) as app:
        for key, rule in RULES.items():
            spec: Any = app.job("tick", {"number": 0, "pause": PAUSES.get(key, 0.0)})
            if key == "flow":
                spec = app.flow("ticked")
                first = spec.add(app.job("tick", {"number": 0}), name="first")
                spec.add(app.job("tick", {"number": 0}), after=first, name="second")
            more = dict(rule)
            await app.schedules.put(key, more.pop("cron", None), spec, **more)
        for schedule in await app.schedules.list():
            assert schedule.next_at is not None
            ticked.first[schedule.key] = schedule.next_at
    return ticked


async def end(app: Flowrun, ticked: Ticked, still: float) -> list[str]:
    """Let each tick once more, and pause them all. Those that do not are returned."""
    deadline = time.monotonic() + still
    before = {one.key: one.next_at for one in await app.schedules.list()}
    behind = dict(before)
    while behind and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        behind = {one.key: one.next_at for one in await app.schedules.list() if one.next_at == before[one.key]}
    for key in RULES:
        with contextlib.suppress(*handlers.errors()):
            await app.schedules.pause(key)
    for schedule in await app.schedules.list():
        assert schedule.next_at is not None
        ticked.end[schedule.key] = schedule.next_at
        ticked.dispatched[schedule.key] = schedule.dispatched
    return [f"schedule {key} does not tick any more: next at {at}" for key, at in behind.items()]


RUNS = """
select
    j.options ->> 'schedule' as schedule, (j.options ->> 'scheduled_for')::timestamptz as tick,
    coalesce(fl.root_id, j.id) as id, min(j.created_at) as created_at, min(f.started_at) as started_at,
    max(f.finished_at) as finished_at
from chaos.all_jobs j
left join chaos.all_flows fl on fl.id = j.flow_id
left join chaos.all_finished f on f.id = j.id
where j.options ? 'schedule' and j.type = 'tick'
group by 1, 2, 3 order by 1, 2
"""


def broken(ticked: Ticked) -> list[tuple[str, str, UUID | None]]:
    """What is wrong with the ticks that came, or did not."""
    by_key: dict[str, list[Any]] = defaultdict(list)
    for run in ticked.runs:
        by_key[run["schedule"]].append(run)
    found: list[tuple[str, str, UUID | None]] = []
    for key, rule in RULES.items():
        runs = by_key[key]
        ticks = [run["tick"] for run in runs]
        found += [
            ("ticks twice", f"schedule {key}: {run['tick']} was dispatched twice", run["id"])
            for before, run in zip(runs, runs[1:], strict=False)
            if before["tick"] == run["tick"]
        ]
        found += [
            ("ticks early", f"schedule {key}: {run['tick']} was dispatched at {run['created_at']}", run["id"])
            for run in runs
            if run["created_at"] < run["tick"]
        ]
        step = timedelta(seconds=rule.get("every", 1.0))
        wanted = [ticked.first[key] + n * step for n in range(round((ticked.end[key] - ticked.first[key]) / step))]
        if key in COMPLETE:
            lost = sorted(set(wanted) - set(ticks))
            found += [
                ("ticks lost", f"schedule {key}: of {len(wanted)} ticks, {tick} was not taken", None) for tick in lost
            ]
        off = set(ticks) - set(wanted)
        found += [("ticks strange", f"schedule {key} has no tick {tick}", None) for tick in off]
        if ticked.dispatched[key] != len(runs):
            found.append(
                ("ticks counted", f"schedule {key} says {ticked.dispatched[key]}, there are {len(runs)}", None)
            )
        if key in ALONE:
            found += [
                ("ticks overlap", f"schedule {key}: {run['tick']} began before the end of {before['tick']}", run["id"])
                for before, run in zip(runs, runs[1:], strict=False)
                if run["started_at"] is not None and run["started_at"] < before["finished_at"]
            ]
    return found


def step_back(client: Any) -> None:
    """From now on the moment it is for this process's schedules goes back by some seconds again and again."""
    from datetime import UTC
    from itertools import count

    turn = count()
    client.clock = lambda: datetime.now(UTC) - timedelta(seconds=(0.0, 4.0, 1.0)[next(turn) % 3])
