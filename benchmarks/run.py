"""`python -m benchmarks.run SCENARIO...`: flowrun against the floor, in turn, in one run."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import servers
from benchmarks.contest import measure
from benchmarks.scenarios import SCENARIOS


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print: one line a measurement."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("scenario", nargs="+", choices=[*SCENARIOS, "all"], help="what to measure")
    parser.add_argument("--dsn", help="a PostgreSQL where databases may be created; default: an embedded one, fsync on")
    parser.add_argument("--runs", type=int, default=3, help="pairs of runs a measurement (default: 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every size (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the measurements, one JSON object a line")
    options = parser.parse_args(arguments)
    names = list(SCENARIOS) if "all" in options.scenario else list(dict.fromkeys(options.scenario))
    with ExitStack() as stack:
        dsn = stack.enter_context(servers.server(options.dsn))
        machine = asyncio.run(servers.machine(dsn))
        lines = stack.enter_context(options.json.open("a")) if options.json else None
        print("# " + ", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
        for name in names:
            contests = SCENARIOS[name](dsn, options.scale)
            for measurement in measure(name, contests, options.runs, goals=options.scale >= 1):
                print(measurement.line(), flush=True)
                if lines is not None:
                    print(json.dumps(measurement.record() | {"machine": machine}), file=lines, flush=True)


if __name__ == "__main__":
    main()
