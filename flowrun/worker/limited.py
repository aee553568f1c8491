"""Claims where limits count: which queues, when to look, and where the round of the lanes stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from flowrun.core.attempt import Claimed
from flowrun.store import limits
from flowrun.worker.passing import under_limit
from flowrun.worker.session import Session
from flowrun.worker.wake import Bell

SOON, LATE = 0.1, 1.0
"""Seconds after which a worker looks again at a limit that others have used up: first, and at last."""


class Limited:
    """A claimer's part for lanes and limited queues. A worker that meets none of them asks once a poll."""

    def __init__(self, session: Session, bell: Bell, types: Sequence[str]) -> None:
        self._session = session
        self._bell = bell
        self._types = types
        self._queues: list[str] = []
        """Those with a limit or a rate."""
        self._cursors: dict[str, str] = {}
        self._again_at: float | None = None
        self._patience = SOON
        self._had_turn = False
        self._told_at = 0.0
        self._rounds: Counter[str] = Counter()
        """By queue: how often its lanes were gone round since something was found."""

    def learn(self, queues: Sequence[str]) -> None:
        """Which of the claimer's queues are limited, which are paused."""
        settings = self._session.settings
        here = [queue for queue in queues if not (queue in settings and settings[queue].paused)]
        self._queues = [queue for queue in here if queue in settings and settings[queue].limited]
        self._cursors = {queue: self._cursors.get(queue, "") for queue in here}
        self._bell.limited_queues = frozenset(self._queues)
        self._bell.limited = True
        self._again_at = None

    def wanted(self) -> bool:
        """Whether it is time to look."""
        if self._again_at is not None and monotonic() >= self._again_at:
            self._bell.limited = True
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
        sql = session.client.database.sql
        self._bell.limited = False
        self._again_at = None
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
            types=self._types,
            limited=self._queues,
            cursors=self._cursors if lanes else {},
            changes=changes,
        )
        jobs = [job for together in taken.leases.values() for job in together]
        whole = taken.whole or self._gone_round(taken.cursors, jobs)
        self._cursors.update(taken.cursors)
        for number, together in taken.leases.items():
            session.under_limit[number] = under_limit(session, self._bell, together)
        if len(jobs) == room or not whole:
            self._bell.limited = True
            return jobs
        waits = [] if taken.wait is None else [taken.wait]
        if taken.blocked:
            self._tell_others()
            self._patience = SOON if jobs else min(self._patience * 2, LATE)
            waits.append(self._patience)
        self._rounds.clear()
        if waits:
            self._again_at = monotonic() + min(waits)
        return jobs

    def _gone_round(self, cursors: Mapping[str, str], jobs: Sequence[Claimed]) -> bool:
        """Whether all lanes were looked at in vain, a part at each look: where the second round ends, the first one
        that began somewhere in the middle is surely over."""
        if jobs:
            self._rounds.clear()
            return False
        self._rounds.update(queue for queue, lane in cursors.items() if lane <= self._cursors.get(queue, ""))
        return all(self._rounds[queue] >= 2 for queue in cursors)

    def _tell_others(self) -> None:
        """What is used up may be so by workers that pass their slots on."""
        if monotonic() - self._told_at >= LATE:
            self._told_at = monotonic()
            self._session.client.notifier.limit_met(self._session.id)
