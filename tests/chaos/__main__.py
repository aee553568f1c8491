"""Faults at random, and whether anything is lost: ``python -m tests.chaos --minutes 5 --seed 7``.

Random flows of every kind are dispatched all the time to a few worker processes, while workers, sessions, links, and the
server itself are killed, stopped, cut, and delayed. Then everything has to come to rest, and a checker holds the
database, the handlers' own journals and the reference against each other. Exit code 1: something is wrong (the seed and
the history of the offending flows are printed). 2: too few faults came about for the run to mean anything.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos import plants
from tests.chaos.run import Plan, Report, play

STRETCH = 120.0
"""Seconds of faults after which a run comes to rest and the next one, of another seed, begins."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults; longer ones are done in stretches of 2")
    parser.add_argument("--seed", type=int, default=0, help="of the first stretch; the others follow")
    parser.add_argument("--workers", type=int, default=3, help="processes, 2 to 4 (default 3)")
    parser.add_argument("--rate", type=float, default=12.0, help="dispatches a second (default 12)")
    parser.add_argument("--pause", type=float, default=2.4, help="seconds between faults (default 2.4)")
    parser.add_argument("--only", action="append", help="a kind of fault; others are left out")
    parser.add_argument("--plant", help="a bug to be planted: the run must find it (see tests/chaos/plants.py)")
    parser.add_argument(
        "--keep", type=Path, help="a directory for journals and logs (default: deleted when all is well)"
    )
    parser.add_argument("--prove", action="store_true", help="plant each bug in a short run: each must be found")
    asked = parser.parse_args()
    if asked.prove:
        return prove(asked)
    total: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    left, seed = asked.minutes * 60, asked.seed
    while left > 1:
        place = Path(tempfile.mkdtemp(prefix="flowrun-chaos-")) if asked.keep is None else asked.keep / str(seed)
        plan = Plan(seed, min(left, STRETCH), place, asked.workers, asked.rate, asked.pause, asked.only, asked.plant)
        report = asyncio.run(_until_terminated(plan))
        tell(report)
        total += report.injected
        counts.update(report.counts)
        if report.problems:
            return 1
        if not report.valid:
            print(f"invalid: only {report.injected.total()} of {report.planned} faults came about; kept: {place}")
            return 2
        if asked.keep is None:
            shutil.rmtree(place, ignore_errors=True)
        left -= STRETCH
        seed += 1
    print(f"\n{total.total()} faults: " + ", ".join(f"{n} {kind}" for kind, n in sorted(total.items())))
    print(", ".join(f"{n:,} {what}" for what, n in counts.items()) + "; all that must hold held")
    return 0


def prove(asked: argparse.Namespace) -> int:
    """Plant one bug after the other. Exit code 1 if one is not found."""
    missed = []
    for name, plant in plants.PLANTS.items():
        if asked.plant not in (None, name):
            continue
        place = Path(tempfile.mkdtemp(prefix="flowrun-chaos-"))
        plan = Plan(asked.seed, plant.seconds, place, 3, 20.0, 3.0, list(plant.faults), name, still=15.0)
        report = asyncio.run(_until_terminated(plan))
        found = {problem.invariant for problem in report.problems}
        hits = sorted(one for one in found if one.startswith(plant.finds))
        print(f"{time.strftime('%X')} {name}: {', '.join(hits) or 'NOT FOUND'} (of {sorted(found)})", flush=True)
        missed += [name] * (not hits)
        shutil.rmtree(place, ignore_errors=True)
    return 1 if missed else 0


async def _until_terminated(plan: Plan) -> Report:
    task = asyncio.ensure_future(play(plan))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def tell(report: Report) -> None:
    """What a stretch came to."""
    print(
        f"{time.strftime('%X')} seed {report.plan.seed}: {report.injected.total()} of {report.planned} faults, "
        + ", ".join(f"{n} {what}" for what, n in report.counts.items()),
        flush=True,
    )
    for what in report.missing:
        print(f"    not injected: {what}")
    for problem in report.problems[:30]:
        print(f"    {problem}")
    if report.problems:
        print(f"seed {report.plan.seed}: {len(report.problems)} problem(s); everything is kept in {report.plan.place}")
        history = report.plan.place / "histories"
        if history.exists():
            print(history.read_text()[:20_000])


if __name__ == "__main__":
    sys.exit(main())
