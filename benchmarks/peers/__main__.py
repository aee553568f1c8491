"""`python -m benchmarks.peers [list | install NAME... | install all]`."""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.peers.catalogue import PEERS, environments
from benchmarks.peers.install import CannotInstallError, install


def main() -> None:
    """Say what is installed, or install."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    verbs = parser.add_subparsers(dest="verb")
    verbs.add_parser("list", help="what there is (the default)")
    wanted = verbs.add_parser("install", help=f"make environments in {environments()} (FLOWRUN_BENCH_PEERS)")
    wanted.add_argument("name", nargs="+", choices=[*PEERS, "all"])
    options = parser.parse_args()
    if options.verb != "install":
        for peer in PEERS.values():
            print(f"{peer.name:<16}{'installed' if peer.installed else 'not installed':<15}{' '.join(peer.packages)}")
        return
    failed = False
    for name in PEERS if "all" in options.name else options.name:
        print(f"{name}: {' '.join(PEERS[name].packages)}", flush=True)
        try:
            install(PEERS[name])
        except (CannotInstallError, subprocess.CalledProcessError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
