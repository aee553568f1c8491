"""More random flows than the suite has time for: ``python -m tests.model --examples 5000 --seed 7``.

On an embedded server, or on the one that FLOWRUN_TEST_DSN names.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from random import Random

from flowrun.testing import databases
from tests.model.arena import arena
from tests.model.smaller import failure, smallest
from tests.model.written import random_flow


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, help="flows (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random flows (default 0)")
    parser.add_argument("--most", type=int, default=40, help="nodes in a flow (default 40)")
    parser.add_argument("--batch", type=int, default=20, help="flows side by side (default 20)")
    parser.add_argument("--minutes", type=float, default=60, help="end after so many, whatever is left (default 60)")
    asked = parser.parse_args()
    with databases.server(None) as server:
        dsn = await databases.create(server, await databases.template(server))
        try:
            return await play(dsn, asked)
        finally:
            await databases.drop(server, dsn)


async def play(dsn: str, asked: argparse.Namespace) -> int:
    random = Random(asked.seed)
    begun = time.monotonic()
    async with arena(dsn) as here:
        while here.flows < asked.examples and time.monotonic() - begun < asked.minutes * 60:
            flows = [random_flow(random, most=asked.most) for _ in range(asked.batch)]
            problem = await failure(here, flows)
            if problem is not None:
                print(f"seed {asked.seed}, after {here.flows} flows:\n{await smallest(here, flows, problem)}")
                return 1
        seconds = time.monotonic() - begun
    print(f"{here.flows} flows, {here.nodes} nodes as expected in {seconds:.1f} s (seed {asked.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
