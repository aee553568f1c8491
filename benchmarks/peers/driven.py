"""Running drivers: workers in processes of their own, a verb at a time, timed from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from benchmarks import servers
from benchmarks.peers.catalogue import Peer
from benchmarks.peers.drivers import slot
from benchmarks.peers.stores import Stores, redis_count

PATIENCE = 240.0
"""Seconds until a run counts as stuck."""
LOOK = 0.002
"""Seconds between two looks at the counters, and at what is left."""
WARM = 20
"""Jobs left out at the beginning where latency is measured."""
GAP = 20
"""Milliseconds between two dispatches there."""
ROOT = Path(__file__).parents[2]


class Driven:
    """A peer on a fresh store."""

    def __init__(self, peer: Peer, directory: Path, environment: dict[str, str]) -> None:
        self._peer = peer
        self._directory = directory
        self._slots = directory / "slots"
        self._latencies = directory / "latencies"
        slot.create(self._slots)
        self._environment = os.environ | environment | {
            "BENCH_SLOTS": str(self._slots),
            "BENCH_LATENCIES": str(self._latencies),
            "BENCH_HOME": str(peer.home),
            "PYTHONPATH": str(ROOT) if peer.own else "",
            "PYTHONWARNINGS": "ignore",
            "NODE_NO_WARNINGS": "1",
        }  # fmt: skip
        self._workers: list[asyncio.subprocess.Process] = []

    async def call(self, verb: str, *numbers: int) -> list[str]:
        """Run the driver for one verb; the lines it prints."""
        process = await asyncio.create_subprocess_exec(
            *self._peer.command, verb, *map(str, numbers),
            env=self._environment, cwd=self._directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            raise RuntimeError(f"{self._peer.name} {verb}: {err.decode(errors='replace')[-2000:]}")
        return out.decode().splitlines()

    async def work(self, processes: int, *, wanted: int = 0, ready: bool = True) -> None:
        """Start workers; ``ready``: and wait until they say so. ``wanted`` is how many latencies are asked for."""
        more = {"BENCH_WANTED": str(wanted)} if wanted else {}
        for number in range(processes):
            with (self._directory / f"worker-{number}").open("wb") as errors:
                process = await asyncio.create_subprocess_exec(
                    *self._peer.command, "worker",
                    env=self._environment | more | {"BENCH_SLOT": str(number)}, cwd=self._directory,
                    stdout=asyncio.subprocess.PIPE, stderr=errors, start_new_session=True,
                )  # fmt: skip
            self._workers.append(process)
        for process in self._workers if ready else ():
            assert process.stdout is not None
            while b"READY" not in (line := await process.stdout.readline()):
                if not line:
                    raise RuntimeError(self._died())

    async def until(self, reached: Callable[[int, int], bool]) -> tuple[int, int]:
        """Wait until the calls and ends counted are enough; when the first and the last call was."""
        while True:
            calls, first, last, ends = slot.read(self._slots)
            if reached(calls, ends):
                return first, last
            if any(process.returncode is not None for process in self._workers):
                raise RuntimeError(self._died())
            await asyncio.sleep(LOOK)

    async def latencies(self) -> list[float]:
        """Milliseconds, shortest first, without those of the warm-up."""
        while not (self._latencies.exists() and self._latencies.stat().st_size):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        return sorted(int(line) / 1e6 for line in self._latencies.read_text().split()[WARM:])

    async def stop(self) -> None:
        """End the workers, with all that they started."""
        for process in self._workers:
            if process.returncode is None:
                process.terminate()
        for process in self._workers:
            try:
                async with asyncio.timeout(8):
                    await process.wait()
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        self._workers.clear()

    def _died(self) -> str:
        said = "".join(file.read_text(errors="replace") for file in sorted(self._directory.glob("worker-*")))
        return f"a worker of {self._peer.name} died: {said[-2000:]}"


Left = Callable[[], Awaitable[bool]]
"""Whether anything is left to do, by what is stored."""


@asynccontextmanager
async def opened(
    peer: Peer, stores: Stores, jobs: int
) -> AsyncIterator[tuple[Driven, Left, Callable[[], Awaitable[None]]]]:
    """The driver, set up on a fresh store; whether anything is left of so many jobs; and what tidies the store."""
    with tempfile.TemporaryDirectory(prefix="flowrun-bench-") as name:
        directory = Path(name)
        if peer.store == "redis":
            address = stores.redis
            if address is None:
                raise RuntimeError("there is no redis-server")

            async def left_in_redis() -> bool:
                return await redis_count(address, peer.left) > 0

            async def nothing() -> None: ...

            async with _stopping(Driven(peer, directory, {"REDIS": address})) as driven:
                yield driven, left_in_redis, nothing
            return
        async with asyncio.timeout(PATIENCE), servers.fresh_database(stores.dsn) as database:
            reader = await asyncpg.connect(database)

            async def left() -> bool:
                return bool(await reader.fetchval(peer.left, *([jobs] if "$1" in peer.left else [])))

            async def tidy() -> None:
                await servers.tidy(database, analyze=peer.name != "oban", vacuum=True)

            try:
                async with _stopping(Driven(peer, directory, {"DSN": database})) as driven:
                    yield driven, left, tidy
            finally:
                reader.terminate()


@asynccontextmanager
async def _stopping(driven: Driven) -> AsyncIterator[Driven]:
    async with asyncio.timeout(PATIENCE):
        try:
            await driven.call("setup")
            yield driven
        finally:
            await driven.stop()


async def drain(peer: Peer, stores: Stores, jobs: int, processes: int) -> dict[str, float]:
    """A backlog of no-op jobs: first handler called -> nothing left in the store."""
    jobs = max(1, round(jobs * peer.share))
    async with opened(peer, stores, jobs) as (driven, left, tidy):
        dispatching = float((await driven.call("dispatch", jobs))[-1])
        await tidy()
        await driven.work(processes, ready=False)
        first, _ = await driven.until(lambda calls, _: calls >= jobs)
        while await left():
            await asyncio.sleep(LOOK)
        seconds = (time.monotonic_ns() - first) / 1e9
    return {"rate": jobs / seconds, "dispatch_rate": jobs / dispatching}


async def latency(peer: Peer, stores: Stores, jobs: int) -> dict[str, float]:
    """Dispatch called in one process -> first line of the handler in another, which is idle."""
    async with opened(peer, stores, jobs) as (driven, _, _):
        await driven.work(1, wanted=jobs + WARM)
        await asyncio.sleep(1)
        await driven.call("latency", jobs + WARM, GAP)
        times = await driven.latencies()
    return {"p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)]}


async def chains(peer: Peer, stores: Stores, number: int, length: int) -> dict[str, float]:
    """Chains side by side: dispatch called -> last handler called, the worker idle before."""
    milliseconds = await _flow(peer, stores, "chains", (number, length), number)
    return {"ms": milliseconds, "rate": number * length / milliseconds * 1e3}


async def fan(peer: Peer, stores: Stores, width: int) -> dict[str, float]:
    """1 -> width -> 1: dispatch called -> the join's handler called, the worker idle before."""
    return {"ms": await _flow(peer, stores, "fan", (width,), 1)}


async def _flow(peer: Peer, stores: Stores, verb: str, numbers: tuple[int, ...], ends: int) -> float:
    async with opened(peer, stores, 0) as (driven, _, _):
        if peer.inline:
            said = await driven.call(verb, *numbers)
            return float(next(line for line in said if line.startswith("TOOK")).split()[1]) * 1e3
        await driven.work(1)
        await asyncio.sleep(1)
        start = int((await driven.call(verb, *numbers))[-1])
        _, last = await driven.until(lambda _, ended: ended >= slot.WARM_UP[0] + ends)
        return (last - start) / 1e6
