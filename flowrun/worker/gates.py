"""Slots that a worker holds: how many of its jobs under a limit run at once, whichever these are.

A slot is not a job's but the worker's, as long as it has jobs for it. What ends makes room for what the worker has
claimed besides, at once: before it is settled, without a claim and without asking anybody. The database knows by each
lease how many slots the worker holds (`slots.most`): all leases together, and the most of those that live counts.
Two rules keep that true whatever happens first:

* A job begins only if fewer run than *its own* lease says. So whenever the last lease that said more goes, no more run.
* A claim that takes more jobs for slots held already relies on an older lease, which is not let go before the claim is
  answered (:meth:`Gates.unpinned`). Whoever counts meanwhile sees one of the two.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from flowrun.core.attempt import Claimed
from flowrun.core.lanes import queue_of
from flowrun.store.claim import HEAD
from flowrun.worker.buffer import Buffer, Pace
from flowrun.worker.wake import Bell


class Gate:
    """The slots of one name."""

    __slots__ = ("cap", "entered", "most", "name", "places", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.entered = 0
        """Jobs that run, or wait for a consumer only."""
        self.waiting = 0
        """Jobs that wait for one of these to end."""
        self.most: dict[int, int] = {}
        """By lease: how many slots the worker holds as of that."""
        self.cap: int | None = None
        """No more are let in than this, until the others have been given their share."""
        self.places: dict[Place, None] = {}
        """Where jobs wait, in the order of their turns."""


class Place:
    """A lane, or a queue with a limit: the jobs of it that this worker has, and what it knows of the others."""

    __slots__ = ("at_once", "backlog", "bell", "gates", "jobs", "low", "mark", "name", "pace")

    def __init__(self, name: str, gates: tuple[Gate, ...], at_once: int | None, bell: Bell) -> None:
        self.name, self.gates, self.at_once, self.bell = name, gates, at_once, bell
        self.jobs: deque[Claimed] = deque()
        """Those that may not begin yet."""
        self.pace = Pace()
        self.mark: tuple[int, UUID] = HEAD
        """The low-water mark of claims."""
        self.backlog = False
        """More is ready there, as far as is known."""
        self.low = 0
        """So few wait here when it is time to claim."""

    @property
    def hungry(self) -> bool:
        """Whether to claim more."""
        return self.backlog and len(self.jobs) <= self.low

    def may_begin(self, job: Claimed) -> bool:
        """Whether all limits let this job in now."""
        for gate in self.gates:
            most = gate.most.get(job.lease, 0)
            if gate.cap is not None and gate.cap < most:
                most = gate.cap
            if gate.entered >= most:
                return False
        # If two jobs name other numbers for one key, each is let in by its own.
        return self.at_once is None or self.gates[-1].entered < self.at_once


class Hold(NamedTuple):
    """A slot's name as a claim relies on it."""

    name: str
    lease: int
    """That it is held by."""
    most: int


class Gates:
    """All gates of a worker."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self.places: dict[str, Place] = {}
        self.gates: dict[str, Gate] = {}
        self._leases: dict[int, tuple[Gate, ...]] = {}
        self.gone: list[tuple[str, int]] = []
        """Slots of leases that have gone: name and lease."""
        self._pinned: Counter[int] = Counter()
        self._unpinned = asyncio.Event()

    def place(self, name: str, slots: Sequence[str], at_once: int | None, bell: Bell) -> Place:
        """Of that name, whose jobs take up ``slots``: the last of them the key's, if it has a limit ``at_once``."""
        place = self.places.get(name)
        if place is None or [gate.name for gate in place.gates] != list(slots):
            gates = tuple(self.gates.setdefault(slot, Gate(slot)) for slot in slots)
            place = self.places[name] = Place(name, gates, at_once, bell)
        return place

    def grant(self, lease: int, most: dict[Gate, int]) -> None:
        """As of this lease, so many slots are held."""
        for gate, slots in most.items():
            gate.most[lease] = slots
            gate.cap = None
        self._leases[lease] = tuple({*self._leases.get(lease, ()), *most})

    def carry(self, lease: int, other: int) -> None:
        """A job was moved from a lease into another, which says the same of what is held."""
        for gate in self._leases.get(lease, ()):
            gate.most[other] = gate.most[lease]
        self._leases[other] = self._leases.get(lease, ())

    def forget(self, leases: Iterable[int]) -> None:
        """These have gone, and what they said with them."""
        for lease in leases:
            for gate in self._leases.pop(lease, ()):
                gate.most.pop(lease, None)
                self.gone.append((gate.name, lease))

    def admit(self, jobs: Sequence[Claimed]) -> list[Claimed]:
        """Claimed jobs, which the buffer holds: those that may begin; the others wait here."""
        begin: list[Claimed] = []
        behind: dict[Place, None] = {}
        for job in jobs:
            place: Place | None = job.place
            if place is None or not place.gates:
                begin.append(job)
            elif not place.jobs and place.may_begin(job):
                for gate in place.gates:
                    gate.entered += 1
                begin.append(job)
            else:
                self._wait(place, job)
                behind[place] = None
        for place in behind:
            begin += self._begin(place)
        return begin

    def left(self, job: Claimed) -> None:
        """A job has left its consumer: whatever its limits let in instead begins, the first in the same consumer."""
        place: Place = job.place
        place.pace.count += 1
        if not place.gates:
            return
        for gate in place.gates:
            gate.entered -= 1
        begin = self._begin(place)
        if begin:
            self._buffer.jobs.append(begin[0])
            self._buffer.put(begin[1:])

    def withdrawn(self, job: Claimed) -> None:
        """A job was taken out of the buffer again."""
        for gate in job.place.gates:
            gate.entered -= 1

    def waiting(self) -> Iterator[Claimed]:
        """Jobs that may not begin yet."""
        for place in self.places.values():
            yield from place.jobs

    def oldest(self) -> list[Claimed]:
        """Of each place where jobs wait, the first."""
        return [place.jobs[0] for place in self.places.values() if place.jobs]

    def turn_out(
        self, queues: Collection[str] | None = None, place: Place | None = None, types: Collection[str] = ()
    ) -> list[Claimed]:
        """The jobs that wait here, of some queues, of one place, or all, are not this worker's any more; nor those of
        places where one of some ``types`` waits."""
        out: list[Claimed] = []
        for each in self.places.values() if place is None else [place]:
            concerned = queues is None or queue_of(each.name) in queues
            if each.jobs and (concerned or any(job.type in types for job in each.jobs)):
                out += each.jobs
                for gate in each.gates:
                    gate.waiting -= len(each.jobs)
                    gate.places.pop(each, None)
                each.jobs.clear()
                each.backlog = False
        return out

    def crowd(self) -> int:
        """How many of those that wait here will soon want a consumer."""
        return sum(min(len(place.jobs), place.pace.ahead()) for place in self.places.values() if place.jobs)

    def needs(self) -> dict[str, int]:
        """By name: how many slots are of use, of those that are held."""
        return {
            name: max(gate.entered, min(need, max(gate.most.values())))
            for name, gate in self.gates.items()
            if gate.most and (need := gate.entered + gate.waiting)
        }

    def hold(self, gate: Gate) -> Hold | None:
        """What a claim may rely on; None: nothing is held for certain."""
        held = self._buffer.held
        live = [(most, lease) for lease, most in gate.most.items() if held.get(lease, 0) > 0]
        if not live:
            return None
        most, lease = max(live)
        return Hold(gate.name, lease, most)

    def pin(self, leases: Iterable[int]) -> None:
        """A claim relies on these from now on."""
        self._pinned.update(leases)

    def unpin(self, leases: Iterable[int]) -> None:
        """The claim is answered, or is not waited for any more."""
        for lease in leases:
            self._pinned[lease] -= 1
            if not self._pinned[lease]:
                del self._pinned[lease]
        self._unpinned.set()

    async def unpinned(self, leases: Collection[int]) -> None:
        """Wait until no claim relies on any of these."""
        while self._pinned and not self._pinned.keys().isdisjoint(leases):
            self._unpinned.clear()
            await self._unpinned.wait()

    def slack(self) -> dict[Gate, int]:
        """Slots that are held for nothing: what is kept of them. Nobody begins with more from now on."""
        keep: dict[Gate, int] = {}
        wanted = {gate for place in self.places.values() if place.backlog for gate in place.gates}
        for gate in self.gates.values():
            if not gate.most:
                gate.cap = None
                continue
            most = max(gate.most.values())
            need = gate.entered + gate.waiting
            if gate.cap is not None:
                need = max(gate.entered, gate.cap)
                if gate.entered > gate.cap:
                    continue
            elif gate in wanted:
                continue
            if need >= most or not self._pinned.keys().isdisjoint(gate.most):
                continue
            keep[gate] = need
            gate.cap = None
            for lease, slots in gate.most.items():
                gate.most[lease] = min(slots, need)
        return keep

    def share(self) -> None:
        """Others wait: the half of all slots shall be theirs, as soon as jobs have ended."""
        for gate in self.gates.values():
            if gate.most:
                gate.cap = max(gate.most.values()) // 2

    def reset(self, queues: Collection[str]) -> dict[Gate, int]:
        """The limits of these queues may have changed: no slot of theirs is held any more but by what runs."""
        keep: dict[Gate, int] = {}
        for queue in queues:
            gate = self.gates.get(f"queue:{queue}")
            if gate is not None and gate.most:
                keep[gate] = gate.entered
                gate.most.update(dict.fromkeys(gate.most, 0))
        return keep

    def sweep(self) -> None:
        """Forget keys that have nothing here any more."""
        self.places = {name: place for name, place in self.places.items() if place.jobs or place.backlog}
        used = {gate for place in self.places.values() for gate in place.gates}
        self.gates = {
            name: gate for name, gate in self.gates.items() if gate.entered or gate.waiting or gate.most or gate in used
        }

    def _wait(self, place: Place, job: Claimed) -> None:
        place.jobs.append(job)
        for gate in place.gates:
            gate.waiting += 1
            gate.places[place] = None

    def _begin(self, place: Place) -> list[Claimed]:
        """What may begin now that a job of ``place`` has ended: there first, then under the same limits, in turn."""
        begin: list[Claimed] = []
        while place.jobs and place.may_begin(place.jobs[0]):
            begin.append(self._enter(place))
        for gate in place.gates:
            if len(gate.places) > (place in gate.places):
                for other in list(gate.places):
                    if other.jobs and other.may_begin(other.jobs[0]):
                        begin.append(self._enter(other))
                        if other.jobs:
                            gate.places[other] = gate.places.pop(other)
        if place.backlog and len(place.jobs) <= place.low:
            place.bell.ring_limited()
        return begin

    def _enter(self, place: Place) -> Claimed:
        job = place.jobs.popleft()
        for gate in place.gates:
            gate.entered += 1
            gate.waiting -= 1
            if not place.jobs:
                gate.places.pop(place, None)
        return job
