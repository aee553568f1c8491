"""The running job, as its handler sees it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

_logger = logging.getLogger("flowrun.job")


class Job:
    """The running job. A handler's parameter annotated ``Job`` receives it.

    @app.handler
    async def send_email(job: Job, to: str) -> None:
        job.log.info("attempt %d of %d", job.attempt, job.attempts)
    """

    __slots__ = ("_log", "attempt", "attempts", "flow_id", "id", "name", "priority", "queue", "tags", "type")

    def __init__(
        self,
        *,
        id: UUID,
        type: str,
        queue: str = "default",
        attempt: int = 1,
        attempts: int = 1,
        flow_id: UUID | None = None,
        name: str | None = None,
        priority: int = 5,
        tags: tuple[str, ...] = (),
    ) -> None:
        self.id = id
        """Its id: the same in every attempt, so it serves as an idempotency key for the outside world."""
        self.type = type
        """The type its handler is registered by."""
        self.queue = queue
        """The queue it waited in."""
        self.attempt = attempt
        """The number of this attempt; the first is 1."""
        self.attempts = attempts
        """How many attempts it has."""
        self.flow_id = flow_id
        """The flow it is a node of, if any."""
        self.name = name
        """The node's name in that flow."""
        self.priority = priority
        """0 to 9, lower runs first."""
        self.tags = tags
        """The words it was dispatched with."""
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger (``flowrun.job``) whose records carry ``job_id``, ``job_type`` and ``attempt``."""
        if self._log is None:
            extra: dict[str, Any] = {"job_id": str(self.id), "job_type": self.type, "attempt": self.attempt}
            self._log = logging.LoggerAdapter(_logger, extra)
        return self._log

    def __repr__(self) -> str:
        """Type, id and attempt; never the arguments."""
        return f"<Job {self.type!r} {self.id} attempt {self.attempt} of {self.attempts}>"
