"""A worker: starts its loops, stops them, and waits. It decides nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
from anyio.abc import TaskStatus

from flowrun.client.control import tell
from flowrun.client.dispatch import Client
from flowrun.core.attempt import Claimed
from flowrun.core.options import SYSTEM_QUEUE, check_name
from flowrun.errors import ConfigurationError
from flowrun.guarded import sheltered
from flowrun.logs import Log
from flowrun.registry import load_validation
from flowrun.store import upkeep as store_upkeep
from flowrun.store.finish import Settled
from flowrun.store.pool import Connection, reason
from flowrun.store.upkeep import Beat
from flowrun.worker import consumer, endings, pruner, upkeep
from flowrun.worker.claimer import Claimer
from flowrun.worker.heartbeat import Heartbeat
from flowrun.worker.session import Session
from flowrun.worker.settler import SealingSettler, Settler
from flowrun.worker.taker import Taker
from flowrun.worker.ticks import TICKING, Ticks

logger = Log("flowrun.worker")

_BEGINNING = "begin again, after it was given up"
LEAVING = 5.0
"""Seconds in which the database has to answer a worker that leaves: whoever stops it counts them."""
_HOOKS = 5.0
"""Seconds that hooks have to end when the worker leaves."""


class Supervisor:
    """Runs jobs with ``concurrency`` consumers until :meth:`stop`.

    Stopping is graceful: nothing more is claimed, running jobs have ``grace`` seconds to end, the rest is handed back
    without using an attempt.
    """

    def __init__(
        self,
        client: Client,
        *,
        concurrency: int,
        queues: Sequence[str] | Mapping[str, int | None],
        grace: float,
    ) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or not 1 <= concurrency <= 10_000:
            raise ConfigurationError(f"concurrency must be a whole number from 1 to 10,000; got {concurrency!r}")
        if not queues or isinstance(queues, str):
            raise ConfigurationError(f"queues must be a list of names, at least one; got {queues!r}")
        self._allotments = _allotments(queues, concurrency)
        self._client = client
        self._concurrency = concurrency
        self._queues = [check_name("queue", queue) for queue in dict.fromkeys(queues)]
        self._grace = grace
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._ended = asyncio.Event()
        self._session: Session | None = None

    @property
    def abandoned(self) -> int:
        """How many handlers ignored their cancellation, or run in a thread that cannot be interrupted, and still run.

        Their attempts are settled, their consumers work on. A number that grows is a handler to be mended.
        """
        return 0 if self._session is None else len(self._session.left) + len(self._session.threads.left)

    def stop(self, *, at_once: bool = False) -> None:
        """Stop claiming and drain; ``at_once``: hand back running jobs without waiting for them."""
        self._stop.set()
        if at_once:
            self._hurry.set()

    def refused(self, job: Claimed) -> None:
        """The code of a job has tried to cancel this worker."""
        if self._session is not None:
            endings.refused(self._session, job)

    def cut(self) -> None:
        """The loop ends around this worker, and nobody has asked it to stop: what runs may be the reason.

        A handler that stops the loop, or whose task raises SystemExit, ends a program in which the worker is embedded.
        """
        session = self._session
        if session is not None and not self._stop.is_set():
            session.cut = True
            for slot in session.slots:
                if slot.job is not None:
                    slot.job.given_back = True

    async def ended(self) -> None:
        """Return when it works no more: stopped, or something went wrong (leaving ``app.worker()`` raises it)."""
        await self._ended.wait()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Work until :meth:`stop`. A worker that the others gave up begins again under a new id."""
        try:
            await self._live(task_status)
        finally:
            self._ended.set()

    async def _live(self, task_status: TaskStatus[None]) -> None:
        types = [definition.type for definition in self._client.registry]
        if not types:
            logger.warning("this worker has no handlers: it can run no job")
        load_validation()
        started = False
        while not self._stop.is_set():
            session = self._session = Session(self._client, self._queues, types, self._concurrency, self._allotments)
            if not await self._begin(session, again=started):
                return
            self._client.notifier.local.append(session.wake.ring)
            self._client.notifier.hasten.append(session.hasten)
            try:
                async with anyio.create_task_group() as group:
                    await self._work(session, group, task_status if not started else anyio.TASK_STATUS_IGNORED)
            finally:
                self._client.notifier.local.remove(session.wake.ring)
                self._client.notifier.hasten.remove(session.hasten)
            started = True

    async def _work(self, session: Session, group: anyio.abc.TaskGroup, task_status: TaskStatus[None]) -> None:
        """One life of the worker: from its registration until it stops or is given up."""
        settler = SealingSettler(session) if self._client.sealing.active else Settler(session)
        timers, rescuer, ticks = upkeep.Timers(session), upkeep.Rescuer(session), Ticks(session)

        def on_beat(beat: Beat) -> None:
            timers.learn(beat)
            rescuer.learn(beat)
            ticks.learn(beat)

        heartbeat = Heartbeat(session, on_beat)
        claims, consumers = anyio.CancelScope(), anyio.CancelScope()
        handlers_ended = anyio.Event()

        def start(run: Callable[..., Awaitable[None]], *args: object) -> None:
            group.start_soon(sheltered, run, *args)

        beats, silent = anyio.CancelScope(), anyio.Event()
        start(_within, beats, silent, heartbeat.run)
        await _first(heartbeat.listening, self._stop.wait)
        start(settler.run)
        if settler.aside is not None:
            start(settler.aside.run)
        start(session.processes.run)
        start(_within, consumers, handlers_ended, consumer.run, session, settler)
        start(_within, claims, anyio.Event(), self._claim, session, settler)
        start(upkeep.persevere, session, "watch queues", upkeep.watch_queues, session, settler)
        start(upkeep.persevere, session, upkeep.MAKING_DUE, timers.run)
        start(upkeep.persevere, session, upkeep.RESCUING, rescuer.run)
        start(upkeep.persevere, session, TICKING, ticks.run)
        start(upkeep.persevere, session, "hand back", upkeep.hand_back_sitting, session, settler)
        start(upkeep.persevere, session, pruner.PRUNING, pruner.run, session)
        logger.info(
            "worker %s (%s) runs %d type(s) from %s", session.name, session.id, len(session.types), session.queues
        )
        taker, takers = Taker(session, settler), self._client.singles.takers
        takers.append(taker)
        task_status.started()
        try:
            await _first(self._stop.wait, session.lost.wait)
            session.stopping = True
            if not session.lost.is_set():
                await self._drain(session, settler, claims)
        finally:
            takers.remove(taker)
            with anyio.CancelScope(shield=True):
                consumers.cancel()
                claims.cancel()
                if session.cut:
                    beats.cancel()
                    await silent.wait()
                if not session.lost.is_set():
                    await self._leave(session, settler, handlers_ended)
                # What could not be settled by now is not tried for ever: it is somebody else's.
                session.lost.set()
            group.cancel_scope.cancel()

    async def _claim(self, session: Session, settler: Settler) -> None:
        """Claim: once for all queues that share the consumers, once for each that has an allotment."""
        shared = [queue for queue in session.queues if queue not in self._allotments]
        async with anyio.create_task_group() as group:
            claimers = [Claimer(session, settler, [SYSTEM_QUEUE, *shared])]
            claimers += [Claimer(session, settler, [queue], most) for queue, most in self._allotments.items()]
            for claimer in claimers:
                group.start_soon(sheltered, claimer.run)
                group.start_soon(sheltered, claimer.watch)

    async def _drain(self, session: Session, settler: Settler, claims: anyio.CancelScope) -> None:
        """Let running jobs end, for a while."""
        upkeep.empty_buffer(session, settler)
        claims.cancel()
        if session.buffer.running:
            with anyio.move_on_after(self._grace):
                await _first(session.drained.wait, self._hurry.wait, session.lost.wait)

    async def _leave(self, session: Session, settler: Settler, handlers_ended: anyio.Event) -> None:
        """Settle what is done, hand back the rest, sign off. What cannot be told now, the rescue of others finds."""
        try:
            # A handler that is being cancelled still runs: its job is not given to others before it has ended.
            await handlers_ended.wait()
            with anyio.move_on_after(10.0):
                upkeep.empty_buffer(session, settler)
                await settler.all_settled()
            await self._client.hooks.drain(_HOOKS)
            database = self._client.database

            async def verb(connection: Connection) -> Settled:
                sql, calls = database.sql, self._client.calls
                if session.cut:
                    # As if it had died: who rescues what it ran counts that as a loss.
                    await store_upkeep.expire(connection, sql, worker_id=session.id)
                    return Settled()
                return await store_upkeep.leave(connection, sql, worker_id=session.id, name=session.name, calls=calls)

            tell(self._client, await database.repeat(verb, patience=LEAVING))
        except Exception as error:  # noqa: BLE001 - whatever it is: others find what is left
            why = reason(error)
            logger.warning("worker %s could not sign off (%s); its jobs run again after its lease", session.name, why)

    async def _begin(self, session: Session, *, again: bool) -> bool:
        """Enter the worker. ``again``: it has worked before, so what is in the way will pass; False when stopped."""
        while True:
            try:
                await self._register(session)
                await upkeep.look_at_queues(session)
                await upkeep.say_heard(session)
            except Exception as error:
                if not again:
                    raise
                with anyio.move_on_after(session.troubles.met(_BEGINNING, error)):
                    await self._stop.wait()
                if self._stop.is_set():
                    return False
            else:
                session.troubles.over(_BEGINNING)
                return True

    async def _register(self, session: Session) -> None:
        database, settings = self._client.database, self._client.settings

        async def verb(connection: Connection) -> None:
            await store_upkeep.register(
                connection,
                database.sql,
                worker_id=session.id,
                name=session.name,
                queues=session.queues,
                concurrency=session.concurrency,
                lease=settings.lease,
                types=session.types,
            )

        await database.repeat(verb)


def _allotments(queues: Sequence[str] | Mapping[str, int | None], concurrency: int) -> dict[str, int]:
    """How many of the consumers the jobs of a queue may have, where that is said."""
    given = queues if isinstance(queues, Mapping) else {}
    found = {queue: most for queue, most in given.items() if most is not None}
    for queue, most in found.items():
        if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= concurrency:
            raise ConfigurationError(
                f"queue {queue!r} can have 1 to {concurrency} of this worker's consumers (concurrency={concurrency}); "
                f"got {most!r}"
            )
    return found


async def _within(
    scope: anyio.CancelScope, ended: anyio.Event, run: Callable[..., Awaitable[None]], *args: object
) -> None:
    """Run in a scope of its own, and say when it is over."""
    try:
        with scope:
            await run(*args)
    finally:
        ended.set()


async def _first(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when the first of ``waits`` does."""
    async with anyio.create_task_group() as group:

        async def one(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            group.cancel_scope.cancel()

        for wait in waits:
            group.start_soon(sheltered, one, wait)
