"""Bugs to be planted into the programs of a run, to prove that the checker finds them.

``python -m tests.chaos --prove`` plants each in a run of its own, which must come out red; ``--plant NAME`` one of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any


@dataclass
class Plant:
    """A bug, and what makes it show."""

    do: Callable[[], None]
    finds: tuple[str, ...]
    """The invariants of which at least one must be found broken, by the beginning of their names."""
    faults: tuple[str, ...] = ("worker killed", "links cut", "answers lost")
    seconds: float = 30.0


def _replace(name: str, old: str, new: str) -> None:
    """Change a statement."""
    from flowrun.store.statement import Statements

    before = Statements.__getitem__

    def changed(self: Statements, asked: str) -> str:
        text = before(self, asked)
        if asked != name:
            return text
        assert old in text, f"{name}.sql has changed: {old!r} is not in it"
        return text.replace(old, new)

    Statements.__getitem__ = changed  # type: ignore[method-assign]


def settle_without_fence() -> None:
    """Whoever comes late settles all the same."""
    _replace("settle", "full join mine on", "left join mine on")
    _replace("settle", "where coalesce(mine.id = d.id, false)", "")


def joins_forget() -> None:
    """Now and then a parent is not counted."""
    _replace("settle", "where need > 0 and n = 1))", "where need > 0 and n = 1 and random() > 0.1))")
    _replace("settle_one", "from child where need > 0", "from child where need > 0 and random() > 0.1")


def joins_hurry() -> None:
    """A join does not wait for its last parent."""
    _replace("settle", "(select id from child where need <= 0)", "(select id from child where need <= 1)")
    _replace("settle", "where need > 0 and n = 1))", "where need > 1 and n = 1))")
    _replace("settle_one", "(select id from child where need <= 0)", "(select id from child where need <= 1)")
    _replace("settle_one", "from child where need > 0", "from child where need > 1")


def no_heartbeat() -> None:
    """A worker says once that it lives, and never again."""
    from flowrun.worker import heartbeat

    async def beat(*_: Any, **__: Any) -> Any:
        from flowrun.store.upkeep import Beat

        await asyncio.sleep(0)
        return Beat(True, None, None, 0)

    heartbeat.upkeep = type("upkeep", (), {"beat": staticmethod(beat)})  # type: ignore[attr-defined]


def no_rescue() -> None:
    """Nobody takes over what a dead worker had."""
    from flowrun.worker.upkeep import Rescuer

    Rescuer.learn = lambda self, beat: None  # type: ignore[method-assign]


def acknowledge_early() -> None:
    """A dispatch returns before it is written."""
    from flowrun.client.dispatch import Client

    write, kept = Client.write, set()

    async def early(self: Client, plan: Any, tx: object = None) -> Any:
        if tx is not None or plan.keys:
            return await write(self, plan, tx)
        task = asyncio.create_task(write(self, plan, tx))
        kept.add(task)
        task.add_done_callback(lambda done: (kept.discard(done), done.exception()))
        return {}

    Client.write = early  # type: ignore[method-assign]


def new_ids() -> None:
    """A dispatch that may have been done is done again, as another job."""
    from flowrun.client.dispatch import Client
    from flowrun.errors import DatabaseUnavailable
    from flowrun.store.pool import Database

    repeat, dispatch = Database.repeat, Client.dispatch_job

    async def once(self: Database, verb: Any, *, safe: bool = True) -> Any:
        return await repeat(self, verb, safe=False)

    async def again(self: Client, spec: Any, *, tx: object = None, now: bool = False) -> Any:
        for _ in range(3):
            try:
                return await dispatch(self, spec, tx=tx, now=now)
            except DatabaseUnavailable:
                await asyncio.sleep(0.1)
        return await dispatch(self, spec, tx=tx, now=now)

    Database.repeat = once  # type: ignore[method-assign]
    Client.dispatch_job = again  # type: ignore[method-assign]


def mixed_up_results() -> None:
    """Two jobs that are settled together get each other's result."""
    from flowrun.store import settle

    before = settle.settle

    async def mixed(connection: Any, sql: Any, *, successes: list[Any], **more: Any) -> Any:
        if len(successes) > 1:
            first, second, *rest = successes
            successes = [
                first._replace(result=second.result)
                if hasattr(first, "_replace")
                else replace(first, result=second.result),
                second,
                *rest,
            ]
        return await before(connection, sql, successes=successes, **more)

    settle.settle = mixed


def no_limits() -> None:
    """What runs under a limit is not counted."""
    _replace("claim_limited", "coalesce(sum(jobs) filter (where worker_id <> $1), 0) as others", "0 as others")


def deaf_to_cancels() -> None:
    """A running handler never hears that it is cancelled."""
    from flowrun.worker.session import Session

    Session.interrupt = lambda self, ids: None  # type: ignore[method-assign]


def no_patience() -> None:
    """Delays are forgotten."""
    from flowrun.client.dispatch import Client

    plan_jobs = Client.plan_jobs

    def without(self: Client, specs: Any) -> Any:
        plan = plan_jobs(self, specs)
        plan.jobs = plan.free = [row._replace(delay=None) for row in plan.jobs]
        return plan

    Client.plan_jobs = without  # type: ignore[method-assign]


def own_clock() -> None:
    """A lease ends by the clock of the worker that has it, not by the database's."""
    skew = time.time() - time.clock_gettime(time.CLOCK_REALTIME)
    _replace("beat", "make_interval(secs => $2)", f"make_interval(secs => $2 + {skew:.0f})")


def outbox_leaks() -> None:
    """What a handler dispatches is written at once, whatever becomes of the attempt."""
    from flowrun.client.dispatch import Client

    Client._outbox = lambda self, tx, now: None  # type: ignore[method-assign]


def prunes_early() -> None:
    """What has ended is removed long before its time, and flows whose callbacks still run."""
    _replace("expired", "coalesce($2, kept.seconds)", "0.1 * coalesce($2, kept.seconds)")
    _replace("closed_flows", ">= coalesce(", ">= 0.1 * coalesce(")
    _replace("closed_flows", "ended.jobs = ended.over", "true")


def ticks_come_twice() -> None:
    """Nobody locks a schedule, and nothing else keeps a tick from being taken twice."""
    from functools import partial

    from flowrun.store import ticks

    _replace("due_schedules", "for update of s skip locked", "")
    ticks.make = partial(ticks.make, keyed=False)


def ticks_get_lost() -> None:
    """Of several ticks that are due the first is forgotten."""
    from flowrun.store import ticks

    decide = ticks.decide

    def hasty(*asked: Any) -> Any:
        verdict = decide(*asked)
        return verdict._replace(ticks=verdict.ticks[1:]) if len(verdict.ticks) > 1 else verdict

    ticks.decide = hasty


def ticks_do_not_wait() -> None:
    """No tick heeds the run before."""
    from flowrun.store import ticks

    async def nothing(*_: Any) -> set[Any]:
        return set()

    ticks.open_runs = nothing


def pauses_unheard() -> None:
    """Workers do not know that a queue is paused."""
    _replace("queue_settings", "q.paused", "false")


def forgets_the_callback() -> None:
    """What failed for good calls nothing."""
    from flowrun.client.failures import Calls

    Calls.__call__ = lambda self, failed: None  # type: ignore[method-assign]


def _keys(change: Callable[[Any], Any]) -> None:
    from flowrun.client.dispatch import Client

    plan_jobs = Client.plan_jobs

    def changed(self: Client, specs: Any) -> Any:
        plan = plan_jobs(self, specs)
        plan.keys = change(plan.keys)
        return plan

    Client.plan_jobs = changed  # type: ignore[method-assign]


def debounce_takes_the_running_one() -> None:
    """A dispatch is content with a job that has started before it."""
    _keys(lambda keys: [row._replace(on_conflict="existing") if row.on_conflict == "debounce" else row for row in keys])


def keys_are_forgotten() -> None:
    """Nothing is a duplicate."""
    _keys(lambda keys: [])


def crash_is_a_success() -> None:
    """A handler whose process died has returned nothing."""
    from flowrun.errors import ProcessDied
    from flowrun.worker.processes import Process

    run = Process.run

    async def run_on(self: Process, *asked: Any) -> Any:
        try:
            return await run(self, *asked)
        except ProcessDied:
            return None

    Process.run = run_on  # type: ignore[method-assign]


def orphans() -> None:
    """The processes of handlers do not heed that their worker has ended."""
    from flowrun.worker import processes

    careless = "child._end_with_parent = lambda parent: None; child.os.killpg = lambda *_: None; "
    command = processes._COMMAND.replace(
        "from flowrun.worker.child import main; ", "from flowrun.worker import child; main = child.main; " + careless
    )
    # By these words a process for handlers is known: see computing.py.
    processes._COMMAND = command + "; child.time.sleep(40)  # flowrun.worker.child"


PLANTS = {
    "settle without fence": Plant(
        settle_without_fence, ("I8", "I13", "I19", "standing"), ("worker stopped past its lease",), 60.0
    ),
    "joins forget": Plant(joins_forget, ("I2", "I6", "I10")),
    "joins hurry": Plant(joins_hurry, ("I1", "I3", "I16", "relay")),
    "no heartbeat": Plant(no_heartbeat, ("I13", "I10"), ("links delayed",)),
    "no rescue": Plant(no_rescue, ("I10",), ("worker killed",)),
    "acknowledge early": Plant(acknowledge_early, ("I10 lost",), ("dispatcher killed", "links cut", "answers lost")),
    "new ids": Plant(new_ids, ("I11",), ("answers lost", "links cut")),
    "mixed-up results": Plant(mixed_up_results, ("I19",), ("links cut",)),
    "no limits": Plant(no_limits, ("I22",), ("links cut",)),
    "deaf to cancels": Plant(deaf_to_cancels, ("I23", "I10"), ("links cut",)),
    "delays forgotten": Plant(no_patience, ("I20",), ("links cut",)),
    "own clock": Plant(own_clock, ("I10", "I13"), ("clock wrong",) * 4 + ("worker killed",), 60.0),
    "prunes early": Plant(prunes_early, ("retention",), ("links cut",)),
    "ticks come twice": Plant(ticks_come_twice, ("ticks twice",), ("schedules' clock steps back",)),
    "ticks get lost": Plant(ticks_get_lost, ("ticks lost",), ("server restarted", "queue paused")),
    "ticks do not wait": Plant(ticks_do_not_wait, ("ticks overlap",), ("links cut",)),
    "pauses unheard": Plant(pauses_unheard, ("pause",), ("queue paused",)),
    "callback forgotten": Plant(forgets_the_callback, ("on_failure",), ("links cut",)),
    "debounce takes the running one": Plant(debounce_takes_the_running_one, ("debounce",), ("queue paused",)),
    "keys forgotten": Plant(keys_are_forgotten, ("throttle", "I11 keys"), ("links cut",)),
    "crash is a success": Plant(crash_is_a_success, ("process",), ("handler's process killed",)),
    "orphans": Plant(orphans, ("process",), ("worker killed",)),
    "outbox leaks": Plant(outbox_leaks, ("I11 outbox",), ("worker killed",)),
}


def plant(name: str) -> None:
    """Plant one of them into this process."""
    PLANTS[name].do()
