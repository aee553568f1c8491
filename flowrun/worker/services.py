"""What a running job can ask of its worker, done over the database."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any
from uuid import UUID

from flowrun import codec
from flowrun.client.dispatch import Client
from flowrun.client.shield import shielded
from flowrun.context import DONE
from flowrun.core.attempt import Claimed
from flowrun.errors import FlowrunError, NotStorable
from flowrun.registry import Returned, is_async
from flowrun.shapes import Misfit
from flowrun.store import memory
from flowrun.worker.threads import Threads
from flowrun.worker.transaction import JobTransaction

PATIENCE = 30.0
"""Seconds that a thread waits for its progress to be stored: the loop may end before it answers."""
MESSAGE = 500
"""Characters of a progress message that are kept."""

_inside: ContextVar[tuple[tuple[UUID, str], ...]] = ContextVar("flowrun_steps", default=())
"""The steps in whose functions this code runs."""


class _Running:
    """A step whose function runs."""

    __slots__ = ("ended", "error")

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.error: Exception | None = None


class JobServices:
    """The services of one attempt. See flowrun.context.Services."""

    __slots__ = (
        "_client", "_database", "_id", "_job", "_known", "_loading", "_loop", "_max_payload", "_running", "_threads",
        "_worker",
    )  # fmt: skip

    def __init__(
        self, client: Client, threads: Threads, max_payload: int, worker: tuple[UUID, str], job: Claimed
    ) -> None:
        self._client = client
        self._worker = worker
        self._database = client.database
        self._job = job
        self._threads = threads
        self._max_payload = max_payload
        self._id = job.id
        self._known: dict[str, str] | None = None
        """By name: what earlier steps came to, as stored. None: not asked yet."""
        self._loading: asyncio.Lock | None = None
        self._loop = asyncio.get_running_loop()
        self._running: dict[str, _Running] = {}

    async def step(self, name: str, call: partial[Any]) -> Any:
        """What ``call`` returned in the first attempt that came so far; runs it if there was none."""
        known = self._known if self._known is not None else await self._load()
        returned = Returned(call.func)
        while name not in known:
            running = self._running.get(name)
            if running is None:
                known[name] = await self._first(name, call, returned)
                break
            if (self._id, name) in _inside.get():
                raise FlowrunError(f"step {name!r} waits for itself: its own function asks for it")
            await running.ended.wait()
            if running.error is not None:
                raise running.error
            # Known by now; or whoever ran it was cancelled, and it is this one's turn.
        return _back(self._client.sealing.opened_json(known[name], self._id, f"step {name}"), name, returned)

    def transaction(self) -> JobTransaction:
        """A transaction in which the job can be settled."""
        return JobTransaction(self._client, self._job, self._worker, self._max_payload)

    def spawn(self, spec: Any, after: Any, name: str | None, detached: bool) -> Any:
        """Add a node to the job's own flow, when the attempt succeeds."""
        return self._client.outbox(self._job).spawn(spec, after, name, detached)

    def report(self, fraction: float, message: str | None) -> Awaitable[None]:
        """Store how far the job is: when awaited; from a thread, at once."""
        text = None if message is None else codec.clean_text(message, MESSAGE)
        if text is not None:
            text = self._client.sealing.text(text, self._id, "progress")
        storing = memory.report_progress(self._database, self._id, fraction, text)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run_coroutine_threadsafe(storing, self._loop).result(PATIENCE)
            return DONE
        return storing

    async def _load(self) -> dict[str, str]:
        """Read once what is remembered, also in a first attempt: one that snoozed was the first, too."""
        if self._loading is None:
            self._loading = asyncio.Lock()
        async with self._loading:
            if self._known is None:
                self._known = await memory.steps(self._database, self._id)
            return self._known

    async def _first(self, name: str, call: partial[Any], returned: Returned) -> str:
        """Run ``call`` and remember its value. Those who ask for it meanwhile wait, and share what it raises."""
        running = self._running[name] = _Running()
        before = _inside.set((*_inside.get(), (self._id, name)))
        try:
            value = await self._run(call)
            text = self._dump(value, name, returned)
            _back(text, name, returned)  # what cannot be read back must not be remembered
            sealed = self._client.sealing.json(text, self._id, f"step {name}")
            return await shielded(memory.remember_step(self._database, self._id, name, sealed))
        except Exception as error:
            running.error = error
            raise
        finally:
            _inside.reset(before)
            del self._running[name]
            running.ended.set()

    async def _run(self, call: partial[Any]) -> Any:
        value = call() if is_async(call.func) else await self._threads.run(call, self._job)
        # Also a plain function may return a coroutine: a lambda, a registered handler.
        return await value if inspect.isawaitable(value) else value

    def _dump(self, value: Any, name: str, returned: Returned) -> str:
        try:
            return returned.dump(value, limit=self._max_payload)
        except Misfit as error:
            raise _misfit(name, error) from None
        except NotStorable as error:
            raise NotStorable(error.path, error.reason, what=f"the value of step {name!r}") from None


def _back(text: str, name: str, returned: Returned) -> Any:
    try:
        return returned.load(text)
    except Misfit as error:
        raise _misfit(name, error) from None


def _misfit(name: str, error: Misfit) -> FlowrunError:
    return FlowrunError(f"the value of step {name!r} does not fit what its function says it returns: {error}")


ServicesOf = Callable[[Claimed], JobServices]
