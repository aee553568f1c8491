"""``flowrun serve``: a worker as a program of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from math import isfinite
from typing import Annotated, Any

from cyclopts import Parameter, Token

from flowrun.app import Flowrun
from flowrun.cli import fleet, reloading, terminal
from flowrun.cli.exits import OK, UsageError
from flowrun.cli.loading import load
from flowrun.cli.parent import Parent
from flowrun.cli.stopping import Stopping, leave
from flowrun.logs import Log

logger = Log("flowrun.serve")

_DSN = "FLOWRUN_PARENT_DSN"
"""In the environment of a process of many: the ``--dsn`` its parent was given."""


def _typed(_type: object, tokens: Sequence[Token]) -> str | None:
    """``--dsn`` itself; FLOWRUN_DSN is the app's own business: an app that names its database keeps it."""
    return None if tokens[0].source == "env" else tokens[0].value


def serve(
    app: Annotated[str, Parameter(name="--app", help="MODULE:APP, the app or a function that makes it.")],
    *,
    concurrency: int = 100,
    queue: Annotated[list[str] | None, Parameter(consume_multiple=False)] = None,
    processes: int = 1,
    embedded: bool = False,
    reload: bool = False,
    dsn: Annotated[str | None, Parameter(converter=_typed)] = None,
    grace: float = 30.0,
    parent: Annotated[int | None, Parameter(show=False)] = None,
) -> int:
    """Run jobs until SIGTERM or Ctrl-C; then running jobs may end, and the rest is given back. A second one hurries.

    Parameters
    ----------
    concurrency
        How many jobs run at once in each process.
    queue
        Take jobs from this queue; may be given more than once. NAME=N: at most N of its jobs run at once in each
        process. Default: "default" and those the app's handlers name.
    processes
        How many processes.
    embedded
        Use the embedded PostgreSQL, whatever the app says.
    reload
        Start again whenever a source file below the current directory changes. For development.
    dsn
        Use this database, whatever the app says.
    grace
        Seconds that running jobs have to end after the first signal.
    """
    if embedded and dsn:
        raise UsageError("--embedded and --dsn name two databases; give one")
    if not 0 <= grace <= 86_400 or not isfinite(grace):
        raise UsageError(f"--grace must be between 0 and 86,400 seconds; got {grace}")
    if not 1 <= processes <= 1000:
        raise UsageError(f"--processes must be between 1 and 1,000; got {processes}")
    if reload and processes > 1:
        raise UsageError("--reload works with one process; leave out --processes")
    queues = _queues(queue)
    terminal.log_to_stderr()
    parented = processes > 1 or (reload and parent is None)
    stopping = Stopping(third_kills=not parented)
    if parented:
        same = _same(app, concurrency, queue, grace, embedded=embedded)
        # Not among the arguments: everybody on the machine can list those, and a DSN may hold a password.
        hidden = {_DSN: dsn} if dsn else {}
        keep = reloading.run(same, stopping, hidden) if reload else fleet.run(same, processes, stopping, hidden)
        return asyncio.run(keep)
    dsn = dsn or (os.environ.pop(_DSN, None) if parent is not None else None)
    found = load(app)
    if embedded or dsn:
        found.use_dsn(dsn or "embedded:")
    _run(lambda: _work(found, concurrency, queues, grace, stopping, Parent(parent)))
    return OK


def _queues(given: list[str] | None) -> dict[str, int | None] | None:
    """By queue, how many consumers its jobs may have."""
    if not given:
        return None
    found: dict[str, int | None] = {}
    for one in given:
        name, equals, most = one.rpartition("=") if "=" in one else (one, "", "")
        if equals and (not most.isascii() or not most.isdigit() or int(most) < 1):
            raise UsageError(f"--queue {one}: after = comes how many of the jobs that run at once may be of this queue")
        found[name] = int(most) if equals else None
    return found


async def _work(
    app: Flowrun,
    concurrency: int,
    queues: dict[str, int | None] | None,
    grace: float,
    stopping: Stopping,
    parent: Parent,
) -> None:
    with stopping.listening(), parent.watched(stopping.begin):
        try:
            async with app.worker(concurrency=concurrency, queues=queues, grace=grace) as worker:
                stopping.attend(lambda times: worker.stop(at_once=times > 1))
                parent.tell_ready()
                await _ended(worker.ended)
        except asyncio.CancelledError:
            if not stopping.cancelled:
                raise
    leave()


async def _ended(ended: Callable[[], Awaitable[None]]) -> None:
    """Return when the worker has ended; a cancellation that no signal asked for was a job's, and changes nothing."""
    task = asyncio.current_task()
    while True:
        try:
            return await ended()
        except asyncio.CancelledError:
            logger.error("a job has cancelled the main task of the process; the worker goes on")  # noqa: TRY400
            if task is not None:
                task.uncancel()


def _same(app: str, concurrency: int, queues: list[str] | None, grace: float, *, embedded: bool) -> list[str]:
    """The arguments of one process of many."""
    arguments = ["serve", app, f"--concurrency={concurrency}", f"--grace={grace}", "--processes=1"]
    arguments += [f"--queue={name}" for name in queues or ()]
    return arguments + (["--embedded"] if embedded else [])


def _run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """``asyncio.run``, on uvloop where it is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        from uvloop import new_event_loop as factory  # an extra
    running: asyncio.Task[Any] | None = None

    async def named() -> None:
        nonlocal running
        running = asyncio.current_task()
        await main()

    with asyncio.Runner(loop_factory=factory) as runner:
        loop = runner.get_loop()
        left: Awaitable[None] = named()
        while True:
            try:
                return loop.run_until_complete(left)
            except (SystemExit, KeyboardInterrupt):
                # asyncio ends its loop when any task raises one. Signals have handlers of their own: it was a user's.
                if running is None or running.done():
                    raise
                logger.exception("a task that a handler made wants to end the process; the worker goes on")
                left = running
            except RuntimeError:
                # "Event loop stopped before Future completed": only what runs in it can have stopped it.
                if running is None or running.done():
                    raise
                logger.error("a job has stopped the event loop; the worker goes on")  # noqa: TRY400
                left = running
