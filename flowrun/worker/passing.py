"""Slots of sequences, which go from a job to the next: what a settle may let in instead of what it ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from flowrun.core.attempt import Claimed, Success
from flowrun.core.lanes import holds, is_fair, key_of, queue_of
from flowrun.store.settle import Leases, Slots
from flowrun.worker.session import Session, UnderLimit
from flowrun.worker.wake import Bell

OPEN_HOUSE = 0.1
"""Seconds after which a settle passes nothing on, so that whatever waits anywhere for these slots, or for these
consumers, has its turn. Jobs that take longer are claimed anew each time, and do not notice."""


def under_limit(session: Session, bell: Bell, jobs: Sequence[Claimed]) -> UnderLimit:
    """What the lease of ``jobs`` has to do with limits. Only the slot of a sequence passes on in a settle: its jobs
    may not begin before the one before them is settled. Of other slots the worker holds some (:mod:`.gates`)."""
    place = jobs[0].queue
    return UnderLimit(bell, place if passes(session, place) else None, session.changes)


def passes(session: Session, place: str) -> bool:
    """Whether its slot goes from a job to the next in the settle."""
    setting = session.settings.get(queue_of(place))
    return holds(place) and not is_fair(place) and (setting is None or not setting.limited)


class Batch(NamedTuple):
    """A settle's part for sequences: what is sent, and whose slots are meant."""

    slots: Slots
    held: dict[int, UnderLimit]
    """Its leases that take up limits."""

    @property
    def size(self) -> int:
        """Jobs that it can let in."""
        return sum(place > 0 for place in self.slots.by_job)


class Passing:
    """The settler's part for sequences."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open_house_at = 0.0

    def prepare(self, successes: Sequence[Success], leases: Leases) -> Batch | None:
        """What a settle of ``successes`` passes on; None: no sequence has to do with it."""
        known = self._session.under_limit
        if not known:
            return None
        held = {n: known[n] for n in leases.concerned if n in known}
        sequences = {n: one.place for n, one in held.items() if one.place is not None}
        if not sequences:
            return None
        share = self._share(len(successes), [held[n] for n in sequences])
        places: dict[str, int] = {}
        by_job = [0] * len(successes)
        if share:
            for at, success in enumerate(successes):
                place = sequences.get(success.lease)
                if place is not None and held[success.lease].changes == self._session.changes:
                    by_job[at] = places.setdefault(place, len(places) + 1)
        spent = set(leases.spent)
        given = [n for n in sequences if n in spent]
        first = self._session.next_lease(len(places)) if places else 0
        return Batch(
            Slots(
                by_job,
                [n for n in sequences if n not in spent],
                list(places),
                list(range(first, first + len(places))),
                [key_of(place) for place in places],
                share or 1,
                [key_of(sequences[n]) for n in given],
                given,
            ),
            held,
        )

    def learn(self, batch: Batch, successes: Sequence[Success], handoff: Sequence[Claimed]) -> set[int]:
        """Jobs were let in. Returns the leases of which every slot that became free is taken again."""
        let_in: defaultdict[int, list[Claimed]] = defaultdict(list)
        for job in handoff:
            let_in[job.lease].append(job)
        full: set[int] = set()
        ended: defaultdict[int, list[int]] = defaultdict(list)
        for success, number in zip(successes, batch.slots.by_job, strict=True):
            if number:
                ended[batch.slots.leases[number - 1]].append(success.lease)
        for lease, before in ended.items():
            jobs = let_in.get(lease, ())
            if jobs:
                bell = batch.held[before[0]].bell
                self._session.under_limit[lease] = under_limit(self._session, bell, jobs)
            if len(jobs) == len(before):
                full.update(before)
        return full

    def _share(self, count: int, held: Sequence[UnderLimit]) -> int:
        """0: nothing is passed on, 1: everything, 2: half of it, since other workers wait for such slots too.

        Nothing, where consumers are scarcer than slots: a claim then fills them by turns, and in larger batches."""
        session = self._session
        if session.stopping or session.buffer.room() < count:
            return 0
        if any(one.bell.plain or one.bell.limited for one in held):
            return 0
        now = monotonic()
        if now >= self._open_house_at:
            self._open_house_at = now + OPEN_HOUSE
            return 0
        return 2 if now < session.others_wait_until else 1
