"""The command line: reads what was typed, calls the library, tells how it went. It decides nothing.

Results go to stdout, talk to stderr. Exit codes: 0 ok, 1 failed, 2 usage, 3 database unreachable, 4 migration needed.
Every option can also be set by the environment: ``--concurrency`` by ``FLOWRUN_CONCURRENCY``.
"""

from flowrun.cli.entry import main

__all__ = ["main"]
