"""More random flows than the suite has time for: ``python -m tests.model --minutes 10 --seed 7``.

Four kinds take turns, or one alone (``--kind``): "plain" flows of jobs and "varied" ones of all kinds, compared with what
must become of them, "wild" ones, with people and faults meddling, and "closing" ones, with verbs where they end. On an embedded server, or on the one that
FLOWRUN_TEST_DSN names. Ends with the first offence, made smaller where that can be done, and exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from random import Random

from flowrun.testing import databases
from tests.model import playing, smaller
from tests.model.arena import arena
from tests.model.closing import closing
from tests.model.playing import playground
from tests.model.varied import random_flow as varied_flow
from tests.model.wild import wilderness
from tests.model.written import random_flow

BATCH = 20
"""Flows side by side."""
KINDS = ("plain", "varied", "wild", "closing")


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the random flows (default 0)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these (default all)")
    parser.add_argument("--most", type=int, default=40, help="nodes in a plain flow (default 40)")
    asked = parser.parse_args()
    with databases.server(None) as server:
        dsn = await databases.create(server, await databases.template(server))
        try:
            return await play(dsn, asked)
        finally:
            await databases.drop(server, dsn)


async def play(dsn: str, asked: argparse.Namespace) -> int:
    """Each kind gets its own stretch of time, in an order that comes round several times."""
    kinds = asked.kind or KINDS
    rounds = max(1, round(asked.minutes))
    counts = dict.fromkeys(kinds, 0)
    for number in range(rounds):
        for kind in kinds:
            seconds = asked.minutes * 60 / rounds / len(kinds)
            seed = asked.seed + number
            count, problem = await {"plain": plain, "varied": varied, "wild": wild, "closing": closing_time}[kind](
                dsn, seed, seconds, asked.most
            )
            counts[kind] += count
            if problem is not None:
                print(f"--kind {kind} --seed {seed}, after {count} flows:\n{problem}")
                return 1
            print(f"{time.strftime('%X')} {kind} seed {seed}: {count} flows as expected", flush=True)
    print(", ".join(f"{count} {kind} flows" for kind, count in counts.items()), "as expected")
    return 0


async def plain(dsn: str, seed: int, seconds: float, most: int) -> tuple[int, str | None]:
    random = Random(seed)
    async with arena(dsn) as here:

        async def turn() -> str | None:
            flows = [random_flow(random, most=most) for _ in range(BATCH)]
            problem = await smaller.failure(here, flows)
            return problem and await smaller.smallest(here, flows, problem)

        return await _turns(turn, seconds)


async def varied(dsn: str, seed: int, seconds: float, most: int) -> tuple[int, str | None]:
    random = Random(seed)
    async with playground(dsn) as here:

        async def turn() -> str | None:
            flows = [varied_flow(random, most=max(1, most // 3)) for _ in range(BATCH)]
            problem = await playing.offence(here, flows)
            return problem and await playing.smallest(here, flows, problem)

        return await _turns(turn, seconds)


async def wild(dsn: str, seed: int, seconds: float, _: int) -> tuple[int, str | None]:
    random = Random(seed)
    async with wilderness(dsn) as here:

        async def turn() -> str | None:
            try:
                await here.play(random, BATCH)
            except AssertionError as error:
                return str(error)
            return None

        return await _turns(turn, seconds)


async def closing_time(dsn: str, seed: int, seconds: float, _: int) -> tuple[int, str | None]:
    random = Random(seed)
    async with closing(dsn) as here:

        async def turn() -> str | None:
            try:
                await here.play(random, BATCH)
            except AssertionError as error:
                return str(error)
            return None

        return await _turns(turn, seconds)


async def _turns(turn: Callable[[], Awaitable[str | None]], seconds: float) -> tuple[int, str | None]:
    """How many flows were as expected, and what the first was that was not."""
    begun = time.monotonic()
    count = 0
    while time.monotonic() - begun < seconds:
        if problem := await turn():
            return count, problem
        count += BATCH
    return count, None


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
