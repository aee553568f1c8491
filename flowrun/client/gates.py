"""Gates that are open: what people are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowrun.core.states import Kind
from flowrun.sealing import rows
from flowrun.store import reads

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client


@dataclass(frozen=True, slots=True)
class OpenGate:
    """A node that waits for a signal."""

    id: UUID
    flow_id: UUID
    """The outermost flow: ``await (await app.get_flow(gate.flow_id)).signal(gate.signal, ...)``."""
    flow: str
    node: str
    signal: str
    answers: Sequence[Any] | None
    """What is taken for an answer; None: anything."""
    default: Any
    """Its result when its time is over; None if it fails then."""
    opened_at: datetime
    due_at: datetime | None
    """When its time is over."""


class Gates:
    """``app.gates``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self, *, limit: int = 100) -> list[OpenGate]:
        """Gates that wait for a signal, the oldest first.

        for gate in await app.gates.list():
            print(gate.flow, gate.node, gate.answers)
        """
        found = []
        for row in await reads.open_gates(self._client.database, limit):
            asked = rows.shown_args(self._client.sealing, Kind.GATE, row.pop("args"), row["id"])
            answers = [asked["..."]] if "..." in asked else asked.get("answers")
            answers = answers if isinstance(answers, list) else None
            found.append(OpenGate(**row, answers=answers, default=asked.get("default")))
        return found
