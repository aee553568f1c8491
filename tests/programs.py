"""Worker programs beside a test: each says ``working`` when it works, and ends when its input does."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


async def started(module: str, *arguments: str, **more: str) -> Process:
    """``python -m MODULE ARGUMENT...``, with ``more`` in its environment."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, env=os.environ | more, stdin=PIPE, stdout=PIPE
    )


async def says(process: Process, word: str) -> None:
    """Wait for its next line, which is this one."""
    assert process.stdout is not None
    assert (await asyncio.wait_for(process.stdout.readline(), 60)).decode() == f"{word}\n"


@asynccontextmanager
async def working(*processes: Process) -> AsyncIterator[None]:
    """All of them work; afterwards they have ended, or were killed."""
    try:
        for process in processes:
            await says(process, "working")
        yield
    finally:
        for process in processes:
            if process.returncode is None and process.stdin is not None:
                process.stdin.close()
        for process in processes:
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
