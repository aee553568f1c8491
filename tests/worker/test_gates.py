"""However claims, ends, settles and givings back fall: no more jobs run than the database says that the worker holds."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.core.attempt import Claimed
from flowrun.worker.buffer import Buffer
from flowrun.worker.gates import Gates
from flowrun.worker.wake import Bell

STEPS = st.lists(
    st.tuples(st.sampled_from(["look", "claim", "run", "end", "settle", "slack", "share"]), st.integers(0, 9)),
    max_size=80,
)


def claimed(n: int, lease: int, place: object) -> Claimed:
    job = Claimed((UUID(int=n), 1, None, 0, None, "q", "t", None, None, None, 5, None), lease)
    job.place = place
    return job


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_no_more_run_than_are_held(steps: list[tuple[str, int]]) -> None:
    limit = 5
    buffer = Buffer(100)
    gates = Gates(buffer)
    place = gates.place("q", ["queue:q"], None, Bell(["q"]))
    (gate,) = place.gates
    stored: dict[int, int] = {}
    """By lease that lives: `slots.most`, as the database has it."""
    running: list[Claimed] = []
    done: list[Claimed] = []
    jobs = leases = 0

    def take_in(most: int, count: int) -> None:
        nonlocal jobs, leases
        leases += 1
        gates.grant(leases, {gate: most})
        stored[leases] = most
        new = [claimed(jobs + n, leases, place) for n in range(count)]
        jobs += count
        buffer.hold(new)
        buffer.put(gates.admit(new))

    for what, n in steps:
        if what == "look" and (count := min(n, limit - gates.needs().get("queue:q", 0))) > 0:
            take_in(gates.needs().get("queue:q", 0) + count, count)
        elif what == "claim" and (hold := gates.hold(gate)) is not None and hold.most and n:
            take_in(hold.most, n)
        elif what == "run" and (job := buffer.take()) is not None:
            running.append(job)
        elif what == "end" and running:
            done.append(job := running.pop(n % len(running)))
            buffer.finished()
            gates.left(job)
        elif what == "settle" and done:
            batch, done = done[: n + 1], done[n + 1 :]
            _, spent = buffer.release(job.lease for job in batch)
            gates.forget(spent)
            for lease in spent:
                del stored[lease]
        elif what == "slack":
            for keep in gates.slack().values():
                for lease, most in stored.items():
                    stored[lease] = min(most, keep)
        elif what == "share":
            gates.share()
        assert len(running) <= max(stored.values(), default=0) <= limit
        assert gate.entered == len(running) + len(buffer.jobs)
        assert gate.waiting == len(place.jobs)
        if what not in ("slack", "share"):
            assert not (place.jobs and place.may_begin(place.jobs[0])), "nobody lets it in"


async def test_a_lease_that_a_claim_relies_on_is_not_let_go() -> None:
    gates = Gates(Buffer(10))
    gates.pin([7])
    gates.pin([7])
    waiting: Any = asyncio.ensure_future(gates.unpinned([7, 8]))
    await asyncio.wait_for(gates.unpinned([8]), 5)
    gates.unpin([7])
    await asyncio.sleep(0)
    assert not waiting.done()
    gates.unpin([7])
    await asyncio.wait_for(waiting, 5)
