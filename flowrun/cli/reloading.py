"""``flowrun serve --reload``: a parent that runs no job, and a child that is started anew when the source changes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import anyio

from flowrun.cli.exits import OK, UsageError
from flowrun.cli.fleet import ASKED, Fleet
from flowrun.cli.stopping import Stopping
from flowrun.logs import Log

logger = Log("flowrun.serve")

LOOK = 0.5
"""Seconds between two looks at the files."""
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})

Snapshot = dict[str, tuple[int, int]]
"""By file: when it was changed, and its size."""


async def run(arguments: Sequence[str], stopping: Stopping, environment: Mapping[str, str]) -> int:
    """Keep one process of ``flowrun ARGUMENTS``, with the newest source, until a signal; its exit code."""
    if sys.platform == "win32":
        raise UsageError("--reload needs POSIX")
    with stopping.listening():
        reloader = Reloader(arguments, Path.cwd(), environment)
        stopping.attend(reloader.stop)
        return await reloader.run()


class Reloader:
    """One child after the other. What runs when the source changes is given back at once, without an attempt used."""

    def __init__(self, arguments: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        self._arguments = arguments
        self._environment = environment
        self._directory = directory
        self._fleet = Fleet(arguments, environment)
        self._stopped = asyncio.Event()
        self._changed = False
        self._seen = snapshot(directory)

    def stop(self, times: int) -> None:
        """Pass a signal on to the child."""
        self._stopped.set()
        self._fleet.stop(times)

    async def run(self) -> int:
        """Start children until stopped; the exit code of the last."""
        logger.info("looking for changes of *.py in %s", self._directory)
        while True:
            pid, code = await self._one()
            if not self._changed and not self._stopped.is_set():
                logger.warning("process %d ended (exit code %d); waiting for a change", pid, code)
                await self._change_or_stop()
            if self._stopped.is_set():
                return OK if code in ASKED else code
            self._fleet = Fleet(self._arguments, self._environment)

    async def _one(self) -> tuple[int, int]:
        """A child until it ends, by itself or because a file changed: its process id and its exit code."""
        self._changed = False
        ended = (0, OK)
        async with anyio.create_task_group() as group:
            group.start_soon(self._restart)
            ended = await self._fleet.one()
            group.cancel_scope.cancel()
        return ended

    async def _restart(self) -> None:
        await self._change()
        self._changed = True
        self._fleet.stop(1)
        self._fleet.stop(2)

    async def _change_or_stop(self) -> None:
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                await self._stopped.wait()
                group.cancel_scope.cancel()

            group.start_soon(stop)
            await self._change()
            group.cancel_scope.cancel()

    async def _change(self) -> None:
        """Return when a file has changed, come or gone."""
        while True:
            await asyncio.sleep(LOOK)
            now = await asyncio.to_thread(snapshot, self._directory)
            different = sorted(file for file, _ in set(now.items()) ^ set(self._seen.items()))
            self._seen = now
            if different:
                logger.info("%s has changed; starting again", different[0])
                return


def snapshot(directory: Path) -> Snapshot:
    """The source files in and below ``directory``; not those of environments, and none that is hidden."""
    return dict(_files(str(directory)))


def _files(directory: str) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            elif entry.name.endswith(".py"):
                stat = entry.stat()
                yield entry.path, (stat.st_mtime_ns, stat.st_size)
        except OSError:
            continue  # gone meanwhile
