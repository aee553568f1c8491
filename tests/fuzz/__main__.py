"""Fuzzing: ``python -m tests.fuzz [TARGET...] [--seconds 30] [--seed 0]``, so many seconds for each target.

By default with hypothesis; with ``--engine atheris`` (``pip install atheris``) guided by the coverage of flowrun and
cronsim. Exit code 1: something was found; it is shown with what it was found by. The same strategies run in the suite,
with few examples (tests/fuzz/test_fuzz.py): what was found is added there, or to a test of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("codec", "sealing", "dsn", "cli", "dag", "cron")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each target (default 30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    parser.add_argument("--corpus", type=Path, help="a directory for what atheris finds interesting, to go on from")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - set(NAMES):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    failed = []
    for name in asked.targets or NAMES:
        if asked.engine == "atheris":
            good = _by_coverage(name, asked)
        else:
            good = _by_chance(name, asked.seconds, asked.seed)
        failed += [] if good else [name]
    if failed:
        print(f"found something in: {', '.join(failed)}")
    return 1 if failed else 0


def _by_chance(name: str, seconds: float, seed: int) -> bool:
    """Whether nothing was found within ``seconds``, in rounds of their own seeds."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from tests.fuzz.targets import TARGETS

    values, check = TARGETS[name]
    ends, rounds, count = time.monotonic() + seconds, 0, 0

    def counted(value: object) -> None:
        nonlocal count
        count += 1
        if time.monotonic() < ends:
            check(value)

    while time.monotonic() < ends:
        test = seeded(seed + rounds)(
            settings(
                max_examples=500,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.explicit, Phase.generate, Phase.target, Phase.shrink],
            )(given(values)(counted))
        )
        try:
            test()
        except BaseException as error:  # noqa: BLE001 - what was found, with hypothesis's notes on how
            print(f"{name}: seed {seed + rounds}: {type(error).__name__}: {error}")
            print("\n".join(getattr(error, "__notes__", [])))
            import traceback

            traceback.print_exc()
            return False
        rounds += 1
    print(f"{name}: {count:,} examples in {rounds} rounds, seeds {seed} to {seed + rounds - 1}: nothing", flush=True)
    return True


def _by_coverage(name: str, asked: argparse.Namespace) -> bool:
    """The same by libFuzzer, which ends its process."""
    corpus = [] if asked.corpus is None else [str(asked.corpus / name)]
    for place in corpus:
        Path(place).mkdir(parents=True, exist_ok=True)
    limits = [
        f"-max_total_time={int(asked.seconds)}",
        f"-seed={asked.seed + 1}",
        "-max_len=4096",
        "-timeout=60",
        "-len_control=0",
    ]
    done = subprocess.run([sys.executable, "-m", "tests.fuzz.coverage", name, *limits, "-verbosity=1", *corpus])
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
