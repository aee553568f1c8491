"""flowrun and what it is held against in turn, and what came out."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks import servers

Run = Callable[[], Awaitable[Mapping[str, float]]]
"""One run of one side: its readings by key."""


BUSY = 1.5
"""Load for each core beyond which others were at work: ratios are then nearer to 1 than they should be."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted of the ratio (or, ``of_flowrun``, of flowrun's own figure)."""

    bound: float
    at_least: bool = False
    of_flowrun: bool = False

    def met(self, ratio: float, flowrun: float) -> bool:
        value = flowrun if self.of_flowrun else ratio
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}{' itself' if self.of_flowrun else ''}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the readings of a run."""

    key: str
    unit: str
    """``jobs/s`` and the like count up, ``ms`` and ``us`` down; the ratio is flowrun / baseline either way."""
    label: str = ""
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """Two runs to be held against each other."""

    name: str
    flowrun: Run
    baseline: Run
    figures: Sequence[Figure]
    against: str = "floor"


@dataclass(slots=True)
class Measurement:
    """A figure of both sides over several pairs of runs."""

    scenario: str
    name: str
    unit: str
    against: str
    goal: Goal | None
    flowrun: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    """The machine's load average after each pair, our own share included."""

    @property
    def ratios(self) -> list[float]:
        """flowrun / baseline, pair by pair."""
        return [ours / theirs for ours, theirs in zip(self.flowrun, self.baseline, strict=True)]

    def line(self) -> str:
        """For people."""
        text = (
            f"{self.scenario:<11}{self.name:<58} flowrun {_spread(self.flowrun, self.unit)}"
            f" | {self.against} {_spread(self.baseline, self.unit)} | ratio {_spread(self.ratios, '')}"
        )
        if self.goal is not None:
            met = self.goal.met(median(self.ratios), median(self.flowrun))
            text += f" | goal {self.goal} {'met' if met else 'MISSED'}"
        if self.load and max(self.load) > BUSY * (os.cpu_count() or 1):
            text += f" | BUSY, load {max(self.load):.1f}"
        return text

    def record(self) -> dict[str, Any]:
        """For programs."""
        ratios = self.ratios
        return {
            "scenario": self.scenario,
            "name": self.name,
            "unit": self.unit,
            "against": self.against,
            "flowrun": self.flowrun,
            "baseline": self.baseline,
            "load": self.load,
            "ratio": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
            "goal": None if self.goal is None else str(self.goal),
            "met": None if self.goal is None else self.goal.met(median(ratios), median(self.flowrun)),
        }


def measure(scenario: str, contests: Sequence[Contest], runs: int, *, goals: bool = True) -> Iterator[Measurement]:
    """Run the contests: flowrun, baseline, flowrun, baseline..., each in an event loop of its own.

    ``goals`` are about the full sizes.
    """
    for contest in contests:
        found = [
            Measurement(
                scenario,
                f"{contest.name}{', ' if figure.label else ''}{figure.label}",
                figure.unit,
                contest.against,
                figure.goal if goals else None,
            )
            for figure in contest.figures
        ]
        for _ in range(runs):
            ours, theirs = _alone(contest.flowrun), _alone(contest.baseline)
            for figure, measurement in zip(contest.figures, found, strict=True):
                measurement.flowrun.append(ours[figure.key])
                measurement.baseline.append(theirs[figure.key])
                measurement.load.append(os.getloadavg()[0])
        yield from found


def _alone(run: Run) -> Mapping[str, float]:
    gc.collect()
    return servers.run(_await(run))


async def _await(run: Run) -> Mapping[str, float]:
    return await run()


def _spread(values: Sequence[float], unit: str) -> str:
    middle, low, high = (_number(value, unit) for value in (median(values), min(values), max(values)))
    return f"{middle}{' ' if unit else ''}{unit} ({low}..{high})"


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f}" if unit.endswith("/s") or value >= 100 else f"{value:.2f}"
