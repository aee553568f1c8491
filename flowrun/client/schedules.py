"""``app.schedules``: what is dispatched again and again, by a cron rule or every so many seconds."""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, cast, overload
from uuid import UUID

from flowrun import codec
from flowrun.client.control import tell
from flowrun.client.explain import Explanation
from flowrun.client.handlers import Handler
from flowrun.client.runs import FlowRun, JobRun
from flowrun.client.shield import shielded
from flowrun.codec import clean_text
from flowrun.core import compile as compiler
from flowrun.core.flow import Flow
from flowrun.core.job import JobSpec
from flowrun.core.options import check_name
from flowrun.core.recurrence import Recurrence, recurrence
from flowrun.core.template import placeholder, placeholders, to_template
from flowrun.core.ticking import CATCHUPS, OVERLAPS, Catchup, Overlap
from flowrun.errors import ConfigurationError, NotFound
from flowrun.sealing.rows import to_schedule
from flowrun.store import schedules as store
from flowrun.store.bulk import By

if TYPE_CHECKING:
    from typing import Concatenate

    from flowrun.client.dispatch import Client
    from flowrun.client.handlers import AsyncHandler, AsyncJobHandler, ThreadHandler, ThreadJobHandler
    from flowrun.context import Job
    from flowrun.store.pool import Connection

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
H = TypeVar("H", bound=Handler[..., Any])


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """A schedule as it stands."""

    key: str
    cron: str | None
    every: float | None
    """Seconds between two ticks, where there is no cron rule."""
    timezone: str
    start: datetime | None
    end: datetime | None
    overlap: Overlap
    catchup: Catchup
    kind: Literal["job", "flow"]
    """What it dispatches."""
    name: str
    """The job's type, or the flow's name."""
    paused: bool
    next_at: datetime | None
    """The next tick to be taken; None: there is none any more. One in the past waits for the run under way to end."""
    last_at: datetime | None
    """The last tick that was dispatched."""
    last_id: UUID | None
    """The job or the flow that was dispatched then."""
    running: bool
    """That one has not ended."""
    waits: bool
    """A tick waits for its end."""
    dispatched: int
    """How often anything was."""
    skipped: int
    """Ticks that were left out because the run before had not ended."""
    created_at: datetime
    changed_at: datetime

    @property
    def rule(self) -> str:
        """The rule in words."""
        return Recurrence(self.cron, None if self.every is None else round(self.every * 1e6), self.timezone).words()


@dataclass(frozen=True, slots=True)
class Declared:
    """A schedule that a program declares with ``@app.cron``."""

    key: str
    cron: str
    handler: Handler[..., Any]
    timezone: str
    overlap: Overlap
    catchup: Catchup


class Cron(Protocol):
    """What ``@app.cron(...)`` returns: a decorator for a handler, or for a function that becomes one."""

    # A handler is a function too, so the overloads overlap; the first that fits is the right one.
    @overload
    def __call__(self, handler: H, /) -> H: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(  # type: ignore[overload-overlap] # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[Concatenate[Job, P], Awaitable[R]], /
    ) -> AsyncJobHandler[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> AsyncHandler[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[Concatenate[Job, P], R], /) -> ThreadJobHandler[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> ThreadHandler[P, R]: ...


class Schedules:
    """``app.schedules``."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.declared: dict[str, Declared] = {}
        """By key: those of ``@app.cron``."""

    async def put(
        self,
        key: str,
        cron: str | None = None,
        spec: JobSpec[Any] | Flow | None = None,
        *,
        every: float | None = None,
        timezone: str = "UTC",
        overlap: Overlap = "allow",
        catchup: Catchup = "none",
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> bool:
        """Dispatch ``spec``, a job or a flow, at every tick of a rule; whether that changed anything.

        The rule is ``cron`` (5 fields, or 6 with the second in front) on the clock of ``timezone``, or ``every`` so
        many seconds, counted from ``start`` or else from midnight UTC on 1 January 1970: no restart moves a tick. A
        schedule of the same ``key`` is changed; an unchanged one goes on as it is. ``overlap`` says what a tick does
        while the run before has not ended: ``"allow"``, ``"skip"``, ``"queue"`` (one run after the other), ``"cancel"``
        (the run before is cancelled, and when it has ended the new one begins). ``catchup`` says which of the ticks
        that no worker was there for are made up for: ``"none"``, ``"last"``, ``"all"`` (the last 1,000). No tick comes
        before ``start`` or after ``end``.

        It is written at once, also inside a handler. Raises ConfigurationError, InvalidFlow, InvalidArguments.

            await app.schedules.put("nightly", "0 3 * * *", report.job(), timezone="Europe/Paris")
            await app.schedules.put("tick", every=15.0, spec=tick.job(), overlap="skip", catchup="last")
        """
        where = f"schedule {check_name('the key of a schedule', key)!r}"
        if spec is None:
            raise ConfigurationError(f"{where} needs spec=: handler.job(...) or a flow")
        _check(where, overlap, catchup)
        rule = recurrence(cron, every=every, timezone=timezone, start=start, end=end, where=where)
        kind, name, template = self._template(spec, key, where)
        wanted = store.Wanted(key, rule, overlap, catchup, kind, name, template, self._client.sealing)
        sql = self._client.database.sql
        changed = await self._do(lambda connection: store.put(connection, sql, wanted, now=self._client.clock()))
        if changed:
            self._client.notifier.schedules_changed()
        return changed

    async def remove(self, key: str, *, actor: str | None = None, reason: str | None = None) -> bool:
        """Remove a schedule; False if there was none. What it has dispatched goes on.

        await app.schedules.remove("nightly")
        """
        sql = self._client.database.sql
        return bool(await self._do(lambda connection: store.remove(connection, sql, key, By(actor, reason))))

    async def clear(self, *, actor: str | None = None, reason: str | None = None) -> int:
        """Remove all schedules; how many there were."""
        sql = self._client.database.sql
        return await self._do(lambda connection: store.remove(connection, sql, None, By(actor, reason)))

    async def list(self) -> builtins.list[ScheduleStatus]:
        """All schedules, by key.

        for schedule in await app.schedules.list():
            print(schedule.key, schedule.rule, schedule.next_at)
        """
        return await self._listed(None)

    async def get(self, key: str) -> ScheduleStatus:
        """One schedule. Raises NotFound."""
        found = await self._listed(key)
        if not found:
            raise NotFound(f"no schedule {clean_text(str(key), 200)!r} is stored")
        return found[0]

    async def exists(self, key: str) -> bool:
        """Whether there is a schedule of that key."""
        return bool(await self._listed(key))

    async def pause(self, key: str, *, actor: str | None = None, reason: str | None = None) -> bool:
        """Take no tick any more; False if it was paused already. What runs goes on. Raises NotFound.

        await app.schedules.pause("nightly", actor="ann", reason="the warehouse is closed")
        """
        return await self._pause(key, By(actor, reason), paused=True)

    async def resume(self, key: str, *, actor: str | None = None, reason: str | None = None) -> bool:
        """Go on with the next tick from now; False if it was not paused.

        Ticks of the time between are not made up for, whatever ``catchup`` says. Raises NotFound.
        """
        return await self._pause(key, By(actor, reason), paused=False)

    async def trigger(
        self, key: str, *, overlap: Overlap | None = None, actor: str | None = None, reason: str | None = None
    ) -> JobRun[Any] | FlowRun:
        """Dispatch what the schedule dispatches now, paused or not; its ticks stay as they are.

        It counts as the schedule's last run. Raises NotFound; NotPossible if by ``overlap`` (default: the schedule's
        own) it must wait for a run that has not ended.

            run = await app.schedules.trigger("nightly")
            await run.result(timeout=60)
        """
        if overlap is not None:
            _check(f"schedule {key!r}", overlap, "none")
        client, sql = self._client, self._client.database.sql

        async def verb(connection: Connection) -> store.Triggered:
            by, now = By(actor, reason), client.clock()
            return await store.trigger(connection, sql, key, by, sealing=client.sealing, overlap=overlap, now=now)

        done = await self._do(verb, safe=False)
        tell(client, done.settled)
        if done.kind:
            return await client.get_flow(done.id)
        return JobRun(client, done.id, done.name)

    async def explain(self, key: str) -> Explanation:
        """Why the schedule does not tick, in words. Raises NotFound.

        print(await app.schedules.explain("nightly"))
        """
        sql, now = self._client.database.sql, self._client.clock()
        rows = await self._do(lambda connection: store.standing(connection, sql, key, now=now))
        if not rows:
            raise NotFound(f"no schedule {clean_text(str(key), 200)!r} is stored")
        return _explained(rows[0])

    def declare(
        self,
        cron: str,
        register: Callable[[Callable[..., Any]], Any],
        *,
        key: str | None,
        timezone: str,
        overlap: Overlap,
        catchup: Catchup,
    ) -> Cron:
        """The decorator of ``@app.cron``; ``register`` makes a handler of a function. Raises ConfigurationError."""

        def decorate(function: Callable[..., Any]) -> Handler[..., Any]:
            handler: Handler[..., Any] = function if isinstance(function, Handler) else register(function)
            name = check_name("the key of a schedule", handler.type if key is None else key)
            where = f"schedule {name!r}"
            recurrence(cron, timezone=timezone, where=where)
            _check(where, overlap, catchup)
            definition = self._client.registry.get(handler.type)
            if definition.required:
                missing = ", ".join(sorted(definition.required))
                raise ConfigurationError(f"{where}: its handler needs {missing}; give defaults, or use schedules.put")
            if name in self.declared:
                raise ConfigurationError(f"{where} is declared twice; give one another key=")
            self.declared[name] = Declared(name, cron, handler, timezone, overlap, catchup)
            return handler

        return cast("Cron", decorate)

    async def put_declared(self) -> None:
        """Write what the program declares: when one of its workers starts."""
        for one in self.declared.values():
            await self.put(
                one.key, one.cron, one.handler.job(), timezone=one.timezone, overlap=one.overlap, catchup=one.catchup
            )

    def _template(self, spec: JobSpec[Any] | Flow, key: str, where: str) -> tuple[int, str, dict[str, Any]]:
        """What is dispatched, as data: its kind, its name, its rows."""
        encode, sealing = self._client.encode, self._client.sealing
        if isinstance(spec, Flow):
            plan = compiler.compile_flow(spec, encode, codec.dump, placeholders).plan
            return 1, spec.name, to_template(to_schedule(sealing, plan, key), codec.load, where)
        if not isinstance(spec, JobSpec):
            raise ConfigurationError(f"{where}: spec= takes handler.job(...) or a flow, not {type(spec).__name__}")
        plan = compiler.compile_job(spec, encode, codec.dump, placeholder)
        return 0, spec.type, to_template(to_schedule(sealing, plan, key), codec.load, where)

    async def _pause(self, key: str, by: By, *, paused: bool) -> bool:
        sql, now = self._client.database.sql, self._client.clock()
        changed = await self._do(lambda connection: store.pause(connection, sql, key, by, paused=paused, now=now))
        if changed:
            self._client.notifier.schedules_changed()
        return changed

    async def _listed(self, key: str | None) -> builtins.list[ScheduleStatus]:
        sql = self._client.database.sql
        return [_status(row) for row in await self._do(lambda connection: store.listed(connection, sql, key))]

    async def _do(self, verb: Callable[[Connection], Awaitable[T]], *, safe: bool = True) -> T:
        return await shielded(self._client.database.repeat(verb, safe=safe))


def _status(row: dict[str, Any]) -> ScheduleStatus:
    every = row.pop("every_us")
    return ScheduleStatus(
        every=None if every is None else every / 1e6,
        start=row.pop("starts_at"),
        end=row.pop("ends_at"),
        kind="flow" if row.pop("kind") else "job",
        waits=row.pop("waits_for") is not None,
        **row,
    )


def _explained(row: dict[str, Any]) -> Explanation:
    due = None if row["next_at"] is None else f"{row['next_at']:%Y-%m-%d %H:%M:%S %Z}"
    reasons = []
    if row["paused"]:
        state = "paused"
    elif due is None:
        state, reasons = "over", ["its rule has no tick any more"]
    elif row["waits_for"] is not None:
        state = "waiting"
        reasons.append(f"its tick of {due} waits for {row['waits_for']} to end (overlap={row['overlap']!r})")
    else:
        state = "due" if row["late"] is not None and row["late"] >= 0 else "scheduled"
        reasons.append(f"its next tick is at {due}")
    if not row["alive"]:
        reasons.append("no worker lives that would take a tick")
    else:
        reasons += [
            f"no worker that lives serves the queue {queue!r} and has a handler of type {type!r}"
            for type, queue in row["unserved"]
        ]
    return Explanation(row["key"], state, tuple(reasons))


def _check(where: str, overlap: object, catchup: object) -> None:
    for name, value, allowed in (("overlap", overlap, OVERLAPS), ("catchup", catchup, CATCHUPS)):
        if value not in allowed:
            raise ConfigurationError(
                f"{where}: {name}= must be one of {', '.join(allowed)}; got {clean_text(str(value), 60)!r}"
            )
