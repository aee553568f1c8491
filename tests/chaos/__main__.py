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
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos import plants
from tests.chaos.fleet import HERE
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
    parser.add_argument("--each", type=int, default=0, help="each kind of fault has to be seen so often")
    parser.add_argument("--go-on", action="store_true", help="do the other stretches too when one is red")
    parser.add_argument("--report", type=Path, help="a file for what it came to, as tables (Markdown)")
    parser.add_argument("--prove", action="store_true", help="plant each bug in a short run: each must be found")
    asked = parser.parse_args()
    if asked.prove:
        return prove(asked)
    series = Series(asked)
    left, seed = asked.minutes * 60, asked.seed
    while left > 1:
        place = Path(tempfile.mkdtemp(prefix="flowrun-chaos-")) if asked.keep is None else asked.keep / str(seed)
        plan = Plan(
            seed, min(left, STRETCH), place, asked.workers, asked.rate, asked.pause, asked.only, asked.plant,
            seen=series.injected,
        )  # fmt: skip
        report = asyncio.run(_until_terminated(plan))
        tell(report)
        series.add(report)
        if not report.problems and not report.valid:
            print(
                f"invalid: {report.injected.total()} of {report.planned} faults came about; "
                f"{', '.join(report.vacuous) or 'that is too few'}; kept: {place}"
            )
        if (report.problems or not report.valid) and not asked.go_on:
            break
        if asked.keep is None and report.valid and not report.problems:
            shutil.rmtree(place, ignore_errors=True)
        left -= STRETCH
        seed += 1
    print(f"\n{series.text()}")
    return series.verdict()


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
        for problem in report.problems[:20]:
            if not problem.invariant.startswith(plant.finds):
                print(f"    besides: {problem}"[:500], flush=True)
        shutil.rmtree(place, ignore_errors=True)
    return 1 if missed else 0


class Series:
    """Stretches, one after the other, and what they came to together."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self.injected: Counter[str] = Counter()
        self._planned: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._problems: list[str] = []
        self._invalid: list[int] = []
        self._missing: list[str] = []

    def add(self, report: Report) -> None:
        """One more. What is known by now is written at once: who breaks off keeps it."""
        self.injected += report.injected
        self._planned += report.dealt
        self._counts.update(report.counts)
        self._seconds += report.plan.seconds
        self._problems += [f"seed {report.plan.seed}: {problem}" for problem in report.problems]
        self._missing = report.missing
        if not report.valid:
            self._invalid.append(report.plan.seed)
        if self._asked.report is not None:
            self._asked.report.write_text(self.text())

    def rare(self) -> list[str]:
        """Kinds of faults that were not seen as often as was asked for."""
        return [
            f"{kind}: {self.injected[kind]}" for kind in sorted(self._planned) if self.injected[kind] < self._asked.each
        ]

    def verdict(self) -> int:
        """The exit code."""
        return 1 if self._problems else 2 if self._invalid or self.rare() else 0

    def text(self) -> str:
        """All of it, as Markdown."""
        total = self.injected.total()
        lines = [
            f"{time.strftime('%Y-%m-%d %H:%M')}, {_tree()}, seeds from {self._asked.seed}: {self._seconds / 60:.0f} minutes of "
            f"faults, {total} of {self._planned.total()} planned ones came about ({total * 60 / max(self._seconds, 1):.0f} a minute).",
            "",
            *(f"* {n:,} {what}" for what, n in self._counts.items()),
            "",
            "| fault | planned | seen |",
            "|---|---|---|",
            *(f"| {kind} | {n} | {self.injected[kind]} |" for kind, n in sorted(self._planned.items())),
            "",
            *(f"* not injected: {what}" for what in self._missing),
            *(f"* seen too rarely: {what}" for what in self.rare()),
            *(f"* says nothing: seed {seed}" for seed in self._invalid),
            *(f"* {problem}" for problem in self._problems[:50]),
            "All that must hold held." if not self._problems else f"{len(self._problems)} problem(s).",
        ]
        return "\n".join(lines) + "\n"


def _tree() -> str:
    """Of which code this is a run."""
    git = ["git", "-C", str(HERE)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
        ).stdout
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], check=True, capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "no history here"
    return f"commit {commit.strip()}{' and changes' if changed.strip() else ''}"


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
