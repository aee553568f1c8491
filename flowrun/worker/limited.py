"""Claims where limits count: which queues, when to look, and where the round of the lanes stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

from flowrun.core.attempt import Claimed
from flowrun.core.lanes import at_once, holds, is_fair, key_of, queue_of
from flowrun.store import limits
from flowrun.store.claim import HEAD
from flowrun.store.limits import Wanted
from flowrun.worker.buffer import LARGEST_CLAIM
from flowrun.worker.gates import Gate, Hold, Place
from flowrun.worker.passing import passes, under_limit
from flowrun.worker.session import Session
from flowrun.worker.settler import Settler
from flowrun.worker.wake import Bell

SOON, LATE = 0.1, 1.0
"""Seconds after which a worker looks again at a limit that others have used up: first, and at last."""
AROUND = 0.1
"""Seconds between two looks around while there is more to do where slots are held: others' slots, other lanes, and what
is more urgent than what was claimed last."""
NEWS = 0.01
"""The same, when something became ready meanwhile."""
GARBAGE = 100
"""Slots of leases that have gone, so many are removed at once."""
POLITE = 0.03
"""Seconds in which slots that were given back are for others."""


class Limited:
    """A claimer's part for lanes and limited queues. A worker that meets none of them asks once a poll."""

    def __init__(self, session: Session, bell: Bell, settler: Settler) -> None:
        self._session = session
        self._bell = bell
        self._settler = settler
        self._queues: list[str] = []
        """Those with a limit or a rate."""
        self._cursors: dict[str, str] = {}
        self._again_at: float | None = None
        self._patience = SOON
        self._had_turn = False
        self._told_at = 0.0
        self._rounds: Counter[str] = Counter()
        """By queue: how often its lanes were gone round since something was found."""
        self._around_at = 0.0
        """When it looks around next, whatever else there is to do."""
        self._known = True
        """The last look around has brought something from each lane."""
        self._more = False
        """The last look around may have left out something for want of room."""
        self._lost = False
        """More is ready where no slots are held any more."""
        self._polite_until = 0.0
        """Others have their turn at slots that were given back."""
        self._turn = 0
        self._owed: dict[Gate, int] = {}
        """Slots to be given back: what is kept of them."""

    def learn(self, queues: Sequence[str]) -> None:
        """Which of the claimer's queues are limited, which are paused."""
        settings = self._session.settings
        here = [queue for queue in queues if not (queue in settings and settings[queue].paused)]
        self._queues = [queue for queue in here if queue in settings and settings[queue].limited]
        self._cursors = {queue: self._cursors.get(queue, "") for queue in here}
        self._bell.limited_queues = frozenset(self._queues)
        self._bell.limited = self._bell.news = True
        self._again_at = None
        self._settler.hand_back(self._session.gates.turn_out(queues))
        self._owed |= self._session.gates.reset(queues)
        self._around_at = 0.0

    def wanted(self) -> bool:
        """Whether it is time to look."""
        if self._again_at is not None and monotonic() >= self._again_at:
            self._bell.limited = self._bell.news = True
        return self._bell.limited

    def turn(self) -> bool:
        """Whether to look now: when it is wanted, every other time, or always while nothing else may be ready."""
        self._had_turn = self.wanted() and not (self._had_turn and self._bell.plain)
        return self._had_turn

    def again_in(self) -> float | None:
        """Seconds until a rate, or somebody else's slot, may let something in; None: only a ring tells."""
        return None if self._again_at is None else max(0.0, self._again_at - monotonic())

    async def claim(self, connection: Any, lease: int, room: int, changes: int) -> list[Claimed]:
        """Up to ``room`` jobs, in leases numbered from ``lease`` on, by the settings after so many ``changes``."""
        session = self._session
        self._bell.limited = False
        if self._bell.news:
            self._around_at = min(self._around_at, monotonic() + NEWS)
        jobs: list[Claimed] = []
        if monotonic() < self._around_at:
            jobs = await self._claim_held(connection, lease, room, changes)
        if not jobs:
            now = monotonic()
            enough = self._backlog() and not self._lost and not (self._more and session.buffer.free() > 0)
            at = self._around_at if enough else 0.0
            at = max(at, self._polite_until)
            if now >= at:
                jobs = await self._look_around(connection, lease, room, changes)
            else:
                self._again_at = at if self._again_at is None else min(self._again_at, at)
        if not jobs:  # those that have just come are not counted yet
            await self._give(connection)
        return jobs

    def _backlog(self) -> bool:
        return any(place.backlog for place in self._session.gates.places.values() if place.bell is self._bell)

    async def _look_around(self, connection: Any, lease: int, room: int, changes: int) -> list[Claimed]:
        """Claim wherever something is ready, and learn where."""
        session = self._session
        sql = session.client.database.sql
        self._again_at = None
        self._bell.news = False
        lanes = self._bell.lanes
        self._bell.lanes = False
        if lanes:
            lanes = await limits.any_lane(connection, sql, list(self._cursors))
            # A bell that has rung meanwhile may be about what this look could not see.
            self._bell.lanes |= lanes
        if not lanes and not self._queues:
            return []
        taken = await limits.claim(
            connection,
            sql,
            worker_id=session.id,
            lease=lease,
            limit=room,
            types=self._session.open_types,
            limited=self._queues,
            cursors=self._cursors if lanes else {},
            changes=changes,
            needs=session.gates.needs(),
        )
        jobs = [job for together in taken.leases.values() for job in together]
        whole = taken.whole or self._gone_round(taken.cursors, jobs)
        self._known = taken.whole and taken.lanes == len({job.queue for job in jobs} - {*self._queues})
        self._more = len(jobs) == room or not taken.whole
        self._cursors.update(taken.cursors)
        self._learn_places(taken, full=len(jobs) == room)
        self._around_at = monotonic() + AROUND if self._backlog() else 0.0
        if len(jobs) == room or not whole:
            self._bell.limited = True
            return jobs
        self._plan(taken, jobs)
        self._rounds.clear()
        return jobs

    def _plan(self, taken: limits.Taken, jobs: Sequence[Claimed]) -> None:
        """When to look again although no bell has rung."""
        waits = [] if taken.wait is None else [taken.wait]
        if taken.blocked:
            if taken.starving:
                self._tell_others()
            self._patience = SOON if jobs else min(self._patience * 2, LATE)
            waits.append(self._patience)
        if waits:
            self._again_at = monotonic() + min(waits)

    def _learn_places(self, taken: limits.Taken, full: bool) -> None:
        """Where the jobs of a look around come from, and what is held there as of their leases."""
        gates = self._session.gates
        if len(gates.places) > 1000:
            gates.sweep()
        for known in gates.places.values():
            if known.bell is self._bell:
                known.mark = HEAD
        for number, together in taken.leases.items():
            self._session.under_limit[number] = under_limit(self._session, self._bell, together)
            most: dict[Gate, int] = {}
            for name, held in taken.held[number].items():
                if (place := self._place(name)) is None:
                    continue
                most.update(zip(place.gates, [each for each in held if each is not None], strict=True))
                place.backlog = bool(place.gates or full) and not self._is_rated(name) and not holds(name)
                place.low = 0
                self._bell.limited |= place.backlog and place.pace.ahead() > 0
            if most:
                gates.grant(number, most)
            for job in together:
                self._enter(job)

    def _place(self, name: str) -> Place | None:
        """Where jobs of that lane or queue are counted; None: nobody counts them here."""
        session = self._session
        if passes(session, name):
            return None
        setting = session.settings.get(queue_of(name))
        slots = [f"queue:{queue_of(name)}"] if setting is not None and setting.concurrency is not None else []
        key = None if holds(name) else key_of(name)
        if not slots and key is None and (not is_fair(name) or holds(name) or self._is_rated(name)):
            return None
        slots += [] if key is None else [key]
        return session.gates.place(name, slots, None if key is None else at_once(name), self._bell)

    def _enter(self, job: Claimed) -> None:
        job.place = place = self._session.gates.places.get(job.queue)
        if place is not None and (job.priority, job.id) > place.mark:
            place.mark = (job.priority, job.id)

    def _is_rated(self, place: str) -> bool:
        setting = self._session.settings.get(queue_of(place))
        return setting is not None and setting.rate is not None

    async def _claim_held(self, connection: Any, lease: int, room: int, changes: int) -> list[Claimed]:
        """Claim where slots are held already, or none are needed."""
        session, gates = self._session, self._session.gates
        asked, pinned = self._want(room - gates.crowd())
        if not asked:
            return []
        leases = {hold.lease for hold in pinned}
        gates.pin(leases)
        try:
            jobs = await limits.claim_held(
                connection,
                session.client.database.sql,
                worker_id=session.id,
                lease=lease,
                types=self._session.open_types,
                wanted=asked,
                changes=changes,
            )
        finally:
            gates.unpin(leases)
        return self._learn_held(lease, asked, jobs)

    def _want(self, room: int) -> tuple[list[Wanted], list[Hold]]:
        """What to ask for, place by place, and what that relies on."""
        gates = self._session.gates
        self._lost = False
        holds: dict[Gate, Hold | None] = {}
        hungry: list[tuple[Place, int]] = []
        for place in gates.places.values():
            if place.bell is not self._bell or not place.hungry or (not place.gates and not self._known):
                continue
            for gate in place.gates:
                if gate not in holds:
                    holds[gate] = hold = gates.hold(gate)
                    self._lost |= hold is None
            most = self._allowed(place, holds)
            if most > 0:
                hungry.append((place, most))
        if not hungry:
            return [], []
        self._turn += 1
        shift = self._turn % len(hungry)
        hungry = [*hungry[shift:], *hungry[:shift]]
        share = max(1, room // len(hungry))
        asked: list[Wanted] = []
        relied: set[Hold] = set()
        for place, most in hungry:
            most = min(most, share, room)
            if most <= 0:
                break
            room -= most
            needed = [hold for gate in place.gates if (hold := holds[gate]) is not None]
            relied.update(needed)
            asked.append(Wanted(place.name, place.mark, most, [(hold.name, hold.most) for hold in needed]))
        return asked, list(relied)

    def _allowed(self, place: Place, holds: Mapping[Gate, Hold | None]) -> int:
        """How many more jobs of ``place`` this worker can make use of soon."""
        if not place.gates:
            return LARGEST_CLAIM
        free = LARGEST_CLAIM
        for gate in place.gates:
            hold = holds[gate]
            if hold is None or hold.most == 0 or gate.cap is not None:
                return 0
            free = min(free, hold.most - gate.entered - gate.waiting)
        return free + place.pace.ahead()

    def _learn_held(self, lease: int, asked: Sequence[Wanted], jobs: list[Claimed]) -> list[Claimed]:
        gates = self._session.gates
        found: dict[str, list[Claimed]] = {}
        for job in jobs:
            found.setdefault(job.queue, []).append(job)
        most: dict[Gate, int] = {}
        for each in asked:
            place = gates.places[each.place]
            came = found.get(each.place, ())
            place.backlog = len(came) >= each.most
            place.low = len(came) // 2 if place.gates else 0
            if came:
                most |= {gate: held for gate, (_, held) in zip(place.gates, each.slots, strict=True)}
        if jobs:
            gates.grant(lease, most)
            self._session.under_limit[lease] = under_limit(self._session, self._bell, jobs)
        for job in jobs:
            self._enter(job)
        self._bell.limited |= any(each.backlog for each in (gates.places[one.place] for one in asked))
        return list(_by_turns(list(found.values())))

    async def _give(self, connection: Any) -> None:
        """Give back slots that are of no use here."""
        session = self._session
        gates = session.gates
        keep = {**self._owed, **gates.slack()}
        self._owed = {}
        if not keep and len(gates.gone) < GARBAGE:
            return
        for gate, slots in keep.items():
            for place in [place for place in gate.places if not slots]:
                self._settler.hand_back(gates.turn_out(place=place))
        kept = [(gate.name, lease, slots) for gate, slots in keep.items() for lease in gate.most]
        kept += [(name, lease, 0) for name, lease in gates.gone]
        gates.gone.clear()
        await limits.give(connection, session.client.database.sql, worker_id=session.id, kept=kept)
        if not keep:
            return
        if monotonic() < session.others_wait_until:
            self._polite_until = monotonic() + POLITE
            session.client.notifier.slots_given(session.id)

    def _gone_round(self, cursors: Mapping[str, str], jobs: Sequence[Claimed]) -> bool:
        """Whether all lanes were looked at in vain, a part at each look: where the second round ends, the first one
        that began somewhere in the middle is surely over."""
        if jobs:
            self._rounds.clear()
            return False
        self._rounds.update(queue for queue, lane in cursors.items() if lane <= self._cursors.get(queue, ""))
        return all(self._rounds[queue] >= 2 for queue in cursors)

    def _tell_others(self) -> None:
        """What is used up may be so by workers that hold slots in advance."""
        if monotonic() - self._told_at >= LATE:
            self._told_at = monotonic()
            self._session.client.notifier.limit_met(self._session.id)


def _by_turns(lists: Sequence[Sequence[Claimed]]) -> Iterator[Claimed]:
    """The first of each, the second of each, and so on."""
    for number in range(max(map(len, lists), default=0)):
        for each in lists:
            if number < len(each):
                yield each[number]
