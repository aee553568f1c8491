"""Shapes of work, the same for flowrun and for the floor: so many jobs, and edges between their numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """``jobs`` no-op jobs; ``edges`` lead from a parent's number to its child's, parents first."""

    jobs: int
    edges: Sequence[tuple[int, int]] = ()

    @property
    def is_flow(self) -> bool:
        """Whether flowrun writes it as a flow; else as single jobs."""
        return bool(self.edges)


def flat(jobs: int) -> Work:
    """Jobs that wait for nothing."""
    return Work(jobs)


def chains(number: int, length: int) -> Work:
    """Chains side by side, in one flow."""
    return Work(
        number * length,
        [(at, at + 1) for start in range(0, number * length, length) for at in range(start, start + length - 1)],
    )


def fan(width: int) -> Work:
    """1 -> width -> 1."""
    middle = range(1, width + 1)
    return Work(width + 2, [*((0, at) for at in middle), *((at, width + 1) for at in middle)])


def layered(layers: int, width: int, parents: int = 3) -> Work:
    """A random DAG, the same every time: each job waits for some of the layer before."""
    draw = random.Random(7)
    edges = [
        (parent, child)
        for child in range(width, layers * width)
        for parent in sorted(draw.sample(range(child // width * width - width, child // width * width), parents))
    ]
    return Work(layers * width, edges)
