"""Group commit: whatever finished while the last settle was under way is settled by the next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import anyio

from flowrun import crash
from flowrun.client.shield import shielded
from flowrun.core.attempt import Attempted, Claimed, Ending, Success, handed_back
from flowrun.core.options import SYSTEM_QUEUE
from flowrun.core.states import Outcome
from flowrun.logs import Log
from flowrun.sealing.attempts import sealed
from flowrun.store import settle, upkeep
from flowrun.store.blame import Fault, fault_of, was_answered
from flowrun.store.finish import Settled
from flowrun.store.pool import reason
from flowrun.store.settle import Leases
from flowrun.worker import large
from flowrun.worker.intake import take_in
from flowrun.worker.passing import Passing
from flowrun.worker.refused import tell_refused, unstorable
from flowrun.worker.session import Session

logger = Log("flowrun.worker")

LARGEST = 2000
"""Jobs in one settle: more does not make a job cheaper, and delays those behind it."""

LONGEST = 600.0
"""Seconds: nobody waits longer for an answer."""

CATCHING_UP = 0.002
"""Seconds between two looks of who waits for all to be settled."""

UNSETTLED = 4000
"""Jobs run and not settled beyond which nothing more is claimed: they fill the memory, and are lost with the worker."""


class Settler:
    """The only caller of the store's settling. No timers: an idle system settles one job at once.

    What takes long to settle, since very many jobs are written with it, is settled by a second one, ``aside``, one by
    one and each from a lease of its own: the others of its worker and of its lease do not wait for that.
    """

    _largest = LARGEST  # endings in one settle
    _settling = "settle"  # what troubles are told of

    def __init__(self, session: Session, *, divides: bool = True) -> None:
        self._session = session
        self.aside = Aside(session) if divides else None
        self._under_way: Sequence[Ending] = ()
        self._successes: list[Success] = []
        self._endings: list[Ending] = []
        self.pending = 0
        """Jobs that are done and whose settle has not begun."""
        self._wanted = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.backlog = False
        """More is ready than this worker can take: handing over must leave room for it."""
        self._doubtful: list[int] = []
        """Handoffs whose settle was sent and never answered."""
        self._patience = session.patience
        """Seconds that an answer may take; more after one that did not come: it may just be slow."""
        self._batches = 0
        """How many were settled."""
        self._passing = Passing(session)
        self._passed_on: set[int] = set()
        """Leases of the batch whose slots are all taken again."""

    def put(self, attempted: Attempted) -> None:
        """Settle this with the next batch."""
        if type(attempted) is Success:
            self._successes.append(attempted)
        else:
            self._endings.append(attempted)  # type: ignore[arg-type]
        self.pending += 1
        if self.pending == 1:
            self.idle.clear()
            self._wanted.set()

    def hand_back(self, jobs: Iterable[Claimed]) -> None:
        """Nobody has begun these, and this worker will not."""
        for job in jobs:
            self.put(handed_back(job))

    @property
    def behind(self) -> bool:
        """So much waits to be settled that no more is to be claimed."""
        return self.pending > UNSETTLED or (self.aside is not None and large.too_many(self.aside.waiting))

    @property
    def settles_aside(self) -> bool:
        """Whether something is settled aside: its job counts as if it ran."""
        return self.aside is not None and not self.aside.idle.is_set()

    @property
    def waiting(self) -> Sequence[Ending]:
        """Endings that are not settled yet, the one under way among them."""
        return [*self._under_way, *self._endings]

    async def all_settled(self) -> None:
        """Return when nothing is left to settle."""
        await self.idle.wait()
        if self.aside is not None:
            await self.aside.idle.wait()

    async def caught_up(self) -> None:
        """Return when all that was put before is settled, but for what is settled aside: that counts as if it ran."""
        batches = self._batches + 2 + self.pending // LARGEST
        # An event would have to be set by every settle.
        while self._batches < batches and not (self.idle.is_set() or self._session.lost.is_set()):  # noqa: ASYNC110
            await anyio.sleep(CATCHING_UP)

    async def run(self) -> None:
        """Settle until cancelled. A settle under way is not cut: cancellation never crosses a transaction."""
        connection: Any = None
        try:
            connection = await self._ready()
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                while self._successes or self._endings:
                    connection = await shielded(self._batch(connection))
                    self._batches += 1
                    self._patience = self._session.patience
                    self._session.buffer.room_made.set()
                    await anyio.lowlevel.checkpoint()
                self.idle.set()
                connection = await self._rest(connection)
        finally:
            if connection is not None:
                connection.terminate()

    async def _rest(self, connection: Any) -> Any:
        """Nothing is left to settle: the connection stays, for what comes."""
        return connection

    async def _ready(self) -> Any:
        """A connection on which all is planned, before the first job waits for that: 10 ms. None where it cannot be
        had: the first settle meets what is in the way, and knows what to do about it."""
        connection: Any = None
        try:
            connection = await self._connected(None)
            await settle.plan(connection, self._session.client.database.sql)
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            if isinstance(error, Exception):
                return None
            raise
        return connection

    async def _batch(self, connection: Any) -> Any:
        successes, self._successes = self._successes[:LARGEST], self._successes[LARGEST:]
        endings, self._endings = self._endings[: self._largest], self._endings[self._largest :]
        self._under_way = endings
        self.pending = len(self._successes) + len(self._endings)
        crash.point("settle.before")
        if self.aside is not None and any(ending.more is not None for ending in endings):
            connection, endings = await self._set_aside(connection, endings, self.aside)
        if successes:
            leases = Leases(*self._session.buffer.release(success.lease for success in successes))
            connection, slow = await self._settle(connection, successes, leases)
            endings += slow
            concerned, spent = self._session.buffer.release(
                ending.lease for ending in endings[: len(endings) - len(slow)]
            )
            kept = {ending.lease for ending in slow}
            leases = Leases(
                list(kept.union(concerned)),
                [*spent, *(lease for lease in kept if lease not in self._session.buffer.held)],
            )
        else:
            leases = Leases(*self._session.buffer.release(ending.lease for ending in endings))
        if endings:
            connection = await self._settle_endings(connection, endings, leases)
        if self._session.under_limit:
            ended = {*(success.lease for success in successes), *(ending.lease for ending in endings)}
            self._session.freed(ended, self._passed_on)
        self._under_way = ()
        return await self._give_back_doubtful(connection) if self._doubtful else connection

    async def _set_aside(self, connection: Any, endings: list[Ending], aside: Aside) -> tuple[Any, list[Ending]]:
        """Leave to ``aside`` what would take long here. Returns the others.

        Of those before this batch none is under way here, so that a lease that has only this job is its own already.
        """
        rest: list[Ending] = []
        for ending in endings:
            if ending.more is None or not (large.rows(ending) > large.LARGE or aside.changes(ending.flow_id)):
                rest.append(ending)
                continue
            connection, own = await self._own_lease(connection, ending)
            if own is None:
                rest.append(ending)  # it is not this worker's any more: its settle finds that out
            else:
                aside.put(ending._replace(lease=own))
        return connection, rest

    async def _own_lease(self, connection: Any, ending: Ending) -> tuple[Any, int | None]:
        """The lease that holds nothing but this job, which is moved into one where it has to be; None: it has none."""
        session = self._session
        if session.buffer.held[ending.lease] <= 1:
            return connection, ending.lease
        own = session.next_lease()
        while not session.lost.is_set():
            try:
                connection = await self._connected(connection)
                moved = await settle.move_to_own_lease(
                    connection,
                    session.client.database.sql,
                    worker_id=session.id,
                    ending=ending,
                    own=own,
                    under_limit=ending.lease in session.under_limit,
                )
                crash.point("settle.moved")
            except Exception as error:  # noqa: BLE001 - whatever it is: this job is done, and nobody else knows it
                connection = await self._after(error, connection)
                continue
            self._over()
            if moved:
                session.moved(ending.lease, own)
            return connection, own if moved else None
        return connection, None

    async def _settle(self, connection: Any, successes: list[Success], leases: Leases) -> tuple[Any, list[Ending]]:
        """The fast way. Returns those that have to go the slow way."""
        session = self._session
        lease = session.next_lease()
        resent = False
        self._passed_on = set()
        await session.gates.unpinned(leases.spent)
        while not session.lost.is_set():
            passing = self._passing.prepare(successes, leases)
            asked = 0 if passing is None else passing.size
            session.buffer.asked += asked
            try:
                connection = await self._connected(connection)
                settled = await settle.settle(
                    connection,
                    session.client.database.sql,
                    worker_id=session.id,
                    successes=successes,
                    leases=leases,
                    handoff=self._handoff(len(successes)),
                    handoff_lease=lease,
                    queues=session.handoff_queues,
                    changes=session.changes,
                    types=session.open_types,
                    slots=None if passing is None else passing.slots,
                )
            except Exception as error:  # noqa: BLE001 - whatever it is: these jobs are done, and nobody else knows it
                if fault_of(error) is Fault.DATA:
                    return connection, self._slowly(successes, error)
                connection = await self._after(error, connection)
                if not was_answered(error):
                    resent = True
                    self._doubtful += [lease, *([] if passing is None else passing.slots.leases)]
                    lease = session.next_lease()
                continue
            finally:
                session.buffer.asked -= asked
            self._over()
            crash.point("settle.answered")
            if resent:
                # The first call may have been done: what it released was in the answer that is lost.
                session.announce([success.id for success in successes])
                session.client.notifier.wake([*session.queues, SYSTEM_QUEUE])
            self._report_late(successes, settled, resent)
            self._tell(settled)
            if passing is not None:
                self._passed_on = self._passing.learn(passing, successes, settled.handoff)
            if settled.handoff:
                known = {success.id: success.result for success in successes}
                try:
                    for ended in await take_in(session, connection, settled.handoff, known):
                        self.put(ended)
                except Exception as error:  # noqa: BLE001 - whatever it is: they are given back
                    connection = await self._after(error, connection)
                    self._doubtful += {job.lease for job in settled.handoff}
            by_id = {success.id: success for success in successes} if settled.slow else {}
            slow = [by_id[id] for id in settled.slow]
            return connection, [
                Ending(one.id, one.lease, one.attempt, Outcome.SUCCEEDED, result=one.result) for one in slow
            ]
        return connection, []

    async def _settle_endings(self, connection: Any, endings: list[Ending], leases: Leases) -> Any:
        session = self._session
        await session.gates.unpinned(leases.spent)
        refused = 0
        while not session.lost.is_set():
            # What cannot even fail because of something that hangs on it, fails without that.
            write = settle.settle_endings if refused < 2 else settle.settle_alone
            try:
                connection = await self._connected(connection)
                settled = await write(
                    connection,
                    session.client.database.sql,
                    worker_id=session.id,
                    worker=session.name,
                    endings=endings,
                    leases=leases,
                    calls=session.client.calls,
                )
            except Exception as error:  # noqa: BLE001 - whatever it is: these jobs are done, and nobody else knows it
                if fault_of(error) is not Fault.DATA:
                    connection = await self._after(error, connection)
                    continue
                if len(endings) > 1:
                    return await self._in_halves(connection, endings, leases)
                refused += 1
                tell_refused(endings[0], error, refused)
                if refused > 2:
                    return connection
                endings = [unstorable(endings[0], error)]
                continue
            self._over()
            self._tell(settled)
            return connection
        return connection

    async def _in_halves(self, connection: Any, endings: list[Ending], leases: Leases) -> Any:
        """One of them cannot be settled: find it, and settle the others."""
        middle = len(endings) // 2
        later = {ending.lease for ending in endings[middle:]}
        first, second = endings[:middle], endings[middle:]
        spent = [n for n in leases.spent if n not in later]
        connection = await self._settle_endings(connection, first, Leases(_leases(first), spent))
        spent = [n for n in leases.spent if n in later]
        return await self._settle_endings(connection, second, Leases(_leases(second), spent))

    def _slowly(self, successes: list[Success], error: BaseException) -> list[Ending]:
        """Something in the batch cannot be stored: settle it the slow way, where who it is fails alone."""
        logger.error(
            "a batch of %d results was refused by the database (%s); looking for the one", len(successes), reason(error)
        )
        return [Ending(one.id, one.lease, one.attempt, Outcome.SUCCEEDED, result=one.result) for one in successes]

    def _handoff(self, settling: int) -> int:
        """How many released jobs to take over directly; with a backlog, at most half of the room is theirs."""
        if self._session.stopping or self._session.buffer.closed:
            return 0
        room = max(0, self._session.buffer.room())
        return max(1, room // 2) if self.backlog else max(room, min(settling, 16))

    def _tell(self, settled: Settled) -> None:
        session = self._session
        if settled.ids:
            session.announce(settled.ids)
            session.client.hooks.settled(settled.ids)
        if settled.queues:
            session.client.notifier.wake(settled.queues)
        if settled.scheduled:
            session.wake.due.set()
        if settled.interrupt:
            session.client.notifier.interrupt(settled.interrupt)

    def _report_late(self, successes: Sequence[Success], settled: Settled, resent: bool) -> None:
        missing = len(successes) - len(settled.ids) - len(settled.slow)
        if missing and not resent:
            mine: set[UUID] = {*settled.ids, *settled.slow}
            for success in successes:
                if success.id not in mine:
                    logger.warning(
                        "job %s attempt %d: its result came too late and is refused", success.id, success.attempt
                    )

    async def _connected(self, connection: Any) -> Any:
        if connection is None or connection.is_closed():
            connection = await self._session.connect(self._patience)
        if self._doubtful:
            sql = self._session.client.database.sql
            try:
                queues = await upkeep.hand_back(connection, sql, worker_id=self._session.id, leases=self._doubtful)
            except BaseException:
                connection.terminate()
                raise
            self._doubtful.clear()
            self._session.client.notifier.wake(queues)
        return connection

    async def _give_back_doubtful(self, connection: Any) -> Any:
        """At once: there may be no next settle, and as long as this worker lives nobody else has these jobs."""
        while self._doubtful and not self._session.lost.is_set():
            try:
                connection = await self._connected(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is: it passes
                connection = await self._after(error, connection)
        return connection

    def _over(self) -> None:
        """The database has answered: what was in the way is so no more."""
        if self._session.troubles:
            self._session.troubles.over(self._settling)

    async def _after(self, error: BaseException, connection: Any) -> Any:
        """Wait until it may be tried again, on a connection of which nothing is in doubt."""
        fault = fault_of(error)
        pause = self._session.troubles.met(self._settling, error)
        if isinstance(error, TimeoutError):
            self._patience = min(self._patience * 2, LONGEST)
        if fault is not Fault.AGAIN and connection is not None:
            connection.terminate()
            connection = None
        await anyio.sleep(pause)
        return connection


class Aside(Settler):
    """Settles what takes long, one by one, on a connection that it has only meanwhile."""

    _largest = 1
    _settling = "settle what dispatches many jobs"

    def __init__(self, session: Session) -> None:
        super().__init__(session, divides=False)

    def changes(self, flow: UUID | None) -> bool:
        """Whether something that is settled here grows this flow, so that others that do have to wait for it."""
        return flow is not None and any(ending.flow_id == flow for ending in self.waiting)

    async def _ready(self) -> Any:
        return None  # most workers never need one

    async def _rest(self, connection: Any) -> Any:
        if connection is not None:
            connection.terminate()


class SealingSettler(Settler):
    """Seals what it settles."""

    def put(self, attempted: Attempted) -> None:
        """Settle this, sealed, with the next batch."""
        super().put(sealed(self._session.client.sealing, attempted))


def _leases(endings: Sequence[Ending]) -> list[int]:
    return list({ending.lease for ending in endings})
