"""Hearing notifications: channels, and a connection that listens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from flowrun.core.lanes import SEPARATOR
from flowrun.store.pool import Connection
from flowrun.store.statement import Statements

Heard = Callable[[str, str], None]
"""Called with channel and payload."""


MANY_QUEUES = 1000
"""Whose channels' names are remembered."""


class Channels:
    """Channel names of one schema: of fixed length, since LISTEN cuts a name at 63 bytes where NOTIFY refuses it."""

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._queues: dict[str, str] = {}
        self.control = self._name("control")
        """Payload ``await <ids>``: somebody waits for jobs or flows; ``cancel <ids>``: running jobs were asked to stop;
        ``timer``: something new is scheduled; ``queues``, ``schedules``: some were changed; ``limit <id>``, ``slots
        <id>``: a worker met a limit, or gave back slots; ``hello <id>``: a worker listens for itself.

        Whoever may log in can send any of them: each is a reason to look, and what counts stands in the tables."""
        self.done = self._name("done")
        """Payload: ids of jobs and flows that have ended and that somebody waits for."""

    def queue(self, queue: str) -> str:
        """Something is ready in ``queue``."""
        name = self._queues.get(queue)
        if name is None:
            if len(self._queues) >= MANY_QUEUES:
                self._queues.clear()
            name = self._queues[queue] = self._name(f"queue:{queue}")
        return name

    def _name(self, what: str) -> str:
        return "flowrun_" + hashlib.blake2s(f"{self._schema}:{what}".encode(), digest_size=16).hexdigest()


def place(queue: str, payload: str) -> str:
    """Where something is ready, as told on the channel of ``queue``: in itself, or in a lane of it."""
    return queue + SEPARATOR if payload == "lane" else queue


def ids(payload: str) -> list[UUID]:
    """The ids that a notification names; none if it names anything else: flowrun did not send it."""
    try:
        return [UUID(id) for id in payload.split(",") if id]
    except ValueError:
        return []


async def listen(connection: Connection, channels: Iterable[str], heard: Heard) -> None:
    """Have ``heard`` called for every notification on ``channels`` while the connection lives."""

    def callback(_connection: Any, _pid: int, channel: str, payload: object) -> None:
        heard(channel, str(payload))

    for channel in channels:
        await connection.add_listener(channel, callback)


async def round_trip(connection: Connection, timeout: float) -> None:
    """Raise unless the server answers within ``timeout`` seconds: a dead link can look healthy for ever."""
    await connection.execute("select 1", timeout=timeout)


async def works_on(connection: Connection, sql: Statements, session: int) -> bool:
    """Whether the server still works on a statement of another session, given by its server process."""
    return bool(await connection.fetchval(sql["session_state"], session) == "active")


async def hang_up(connection: Connection, sql: Statements, sessions: Iterable[int]) -> None:
    """End sessions that listen, by their server processes, since nobody reads what they are told."""
    await connection.execute(sql["hang_up"], list(sessions))
