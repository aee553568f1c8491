"""What flowrun is put beside: how each is installed, how one sees that nothing is left to do, and its settings."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

DRIVERS = Path(__file__).parent / "drivers"


@dataclass(frozen=True, slots=True)
class Peer:
    """A system, as its driver runs it."""

    name: str
    packages: tuple[str, ...]
    """What is installed, with the versions that the driver was written for."""
    left: str
    """Whether anything is left: SQL that says so (``$1``: jobs dispatched), or Redis commands that count, ``;`` between."""
    settings: str
    """The best found by a short search, and what its figures do and do not include."""
    language: str = "python"
    store: str = "postgres"
    python: tuple[int, int] = (3, 11)
    share: float = 1.0
    """Part of a scenario's jobs that it gets: the slowest would take minutes, and a rate needs less."""
    inline: bool = False
    """It runs flows in the dispatching process, and says itself how long they took."""
    own: bool = False
    """flowrun or the floor: runs in this environment."""

    @property
    def home(self) -> Path:
        """Its environment, outside the repository."""
        return environments() / self.name

    @property
    def installed(self) -> bool:
        """Whether the environment was made whole."""
        return self.own or (self.home / "installed").exists()

    @property
    def command(self) -> list[str]:
        """What starts its driver; a verb follows."""
        if self.language == "node":
            return ["node", str(DRIVERS / f"{self.module}.mjs")]
        python = sys.executable if self.own else str(self.home / "bin" / "python")
        return [python, str(DRIVERS / f"{self.module}.py")]

    @property
    def module(self) -> str:
        """The driver's file; not named as the package, which it must be able to import."""
        return f"{self.name.replace('-', '_')}_driver"

    @property
    def versions(self) -> str:
        """What is pinned, for people: ``bullmq 6.7.0``."""
        return re.sub(r"(\[.*\])?(==|@)", " ", self.packages[0]) if self.packages else ""


def environments() -> Path:
    """Where environments are: ``FLOWRUN_BENCH_PEERS``, else in the user's cache."""
    if given := os.environ.get("FLOWRUN_BENCH_PEERS"):
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "flowrun-benchmarks" / "peers"


_FLOWS_BY_HAND = "Chains and joins by hand: dispatched by the handler, the join counted in a table."

FLOWRUN = Peer("flowrun", (), "select count(*) < $1 from flowrun.finished where attempt > 0", "Results kept.", own=True)
FLOOR = Peer("floor", (), "select count(*) < $1 from floor.finished", "No features.", own=True)

PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "graphile-worker",
            ("graphile-worker@0.18.0", "pg@8.23.1"),
            "select exists(select from graphile_worker._private_jobs)",
            "24 jobs at once, local queue of 2,000, completions in batches. Deletes what is done: keeps no results, no "
            f"history. {_FLOWS_BY_HAND}",
            language="node",
        ),
        Peer(
            "pgqueuer",
            ("pgqueuer[asyncpg]==1.6.0", "uvloop==0.23.0"),
            "select exists(select from pgqueuer)",
            "Pool driver, batches of 500, its autovacuum settings. Keeps a log, no results. " + _FLOWS_BY_HAND,
        ),
        Peer(
            "pg-boss",
            ("pg-boss@12.38.0", "pg@8.23.1"),
            "select exists(select from pgboss.job where name = 'bench' and state < 'completed')",
            "5 pollers of 2,000 jobs, each half second (its minimum). A batch of 2,000 succeeds or fails as one. "
            + _FLOWS_BY_HAND,
            language="node",
        ),
        Peer(
            "oban",
            ("oban==0.7.0", "uvloop==0.23.0"),
            "select exists(select from oban_jobs where state in ('available', 'executing', 'scheduled', 'retryable'))",
            "Queue limit 1,000, pool of 10; vacuumed without analyze, which misleads its plans. " + _FLOWS_BY_HAND,
            python=(3, 12),
        ),
        Peer(
            "procrastinate",
            ("procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9", "uvloop==0.23.0"),
            "select exists(select from procrastinate_jobs where status in ('todo', 'doing'))",
            "Concurrency 10, polls each 50 ms. Keeps jobs and events. " + _FLOWS_BY_HAND,
            share=0.25,
        ),
        Peer(
            "dbos",
            ("dbos==3.4.0",),
            "select exists(select from dbos.workflow_status where status in ('ENQUEUED', 'PENDING', 'DELAYED'))",
            "Queue without limit, polls each 10 ms, pool of 20. Keeps inputs, outputs and every step. A chain is one "
            "workflow of many steps; a fan is a workflow that starts others.",
            share=0.25,
            inline=True,
        ),
        Peer(
            "chancy",
            ("chancy==0.26.0", "uvloop==0.23.0"),
            "select exists(select from chancy_jobs where state in ('pending', 'running', 'retrying'))",
            "Async executor, concurrency 200, eager polling, outgoing each 10 ms, leader each second. Flows by its "
            "workflow plugin.",
            share=0.25,
        ),
        Peer(
            "celery",
            ("celery[redis]==5.7.0",),
            "LLEN celery;HLEN unacked",
            "Two processes (one for latency), late acknowledgement, prefetch 500, results kept for the join only; on "
            "Redis with appendfsync everysec.",
            store="redis",
            share=0.25,
        ),
        Peer(
            "bullmq",
            ("bullmq@6.7.0", "ioredis@6.0.0"),
            "LLEN bull:bench:wait;LLEN bull:bench:active;ZCARD bull:bench:prioritized",
            "Concurrency 300, flows by its FlowProducer, results kept; on Redis with appendfsync everysec.",
            language="node",
            store="redis",
        ),
    )
}
