"""`python -m benchmarks.run SCENARIO...`: flowrun, the floor and installed peers in turn, in one run."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import servers
from benchmarks.contest import Contest, measure
from benchmarks.peers.catalogue import PEERS, Peer
from benchmarks.peers.stores import Stores, redis
from benchmarks.scenarios import BESIDE, SCENARIOS


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print: one line a measurement."""
    options = _options(arguments)
    names = list(SCENARIOS) if "all" in options.scenario else list(dict.fromkeys(options.scenario))
    peers = [] if options.peers == "none" else _peers(options.peers)
    with ExitStack() as stack:
        dsn = stack.enter_context(servers.server(options.dsn))
        needs_redis = any(peer.store == "redis" for peer in peers)
        address = options.dsn or servers.over_tcp(dsn)
        stores = Stores(address, stack.enter_context(redis()) if needs_redis else None)
        machine = asyncio.run(servers.machine(dsn))
        lines = stack.enter_context(options.json.open("a")) if options.json else None
        print("# " + ", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
        facts = {"when": time.strftime("%Y-%m-%d"), "scale": options.scale, "machine": machine}
        facts |= {"peers": {peer.name: peer.versions for peer in peers}}
        for name in names:
            contests: list[Contest] = []
            if options.part != "beside":
                contests += SCENARIOS[name](dsn, options.scale)
            if options.part != "alone" and name in BESIDE:
                contests += BESIDE[name](stores, options.scale, peers)
            contests = [contest for contest in contests if re.search(options.only, contest.name)]
            for measurement in measure(name, contests, options.runs, goals=options.scale >= 1):
                print(*measurement.lines(), sep="\n", flush=True)
                if lines is not None:
                    print(json.dumps(measurement.record() | facts), file=lines, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("scenario", nargs="+", choices=[*SCENARIOS, "all"], help="what to measure")
    parser.add_argument("--dsn", help="a PostgreSQL where databases may be created; default: an embedded one, fsync on")
    parser.add_argument("--runs", type=int, default=3, help="rounds of runs a measurement (default: 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every size (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the measurements, one JSON object a line")
    parser.add_argument("--peers", default="all", metavar="NAMES", help="all installed (default), none, or a,b")
    parser.add_argument("--part", choices=["alone", "beside"], help="only in this process, or only beside peers")
    parser.add_argument("--only", default="", metavar="REGEX", help="only measurements whose name holds this")
    return parser.parse_args(arguments)


def _peers(names: str) -> list[Peer]:
    """Those that are installed; says how the others can be."""
    chosen = list(PEERS) if names == "all" else names.split(",")
    for name in chosen:
        if not PEERS[name].installed:
            print(f"# {name} is not installed: python -m benchmarks.peers install {name}")
    return [PEERS[name] for name in chosen if PEERS[name].installed]


if __name__ == "__main__":
    main()
