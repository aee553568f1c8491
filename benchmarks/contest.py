"""flowrun and what it is held against in turn, and what came out."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks import servers

Run = Callable[[], Awaitable[Mapping[str, float]]]
"""One run of one side: its readings by key."""


BUSY = 1.5
"""Load for each core beyond which others were at work: ratios are then nearer to 1 than they should be."""
OURS = "flowrun"


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
    """``jobs/s`` and the like count up, ``ms`` and ``us`` down; the ratio is flowrun / other either way."""
    label: str = ""
    goal: Goal | None = None
    """Of the ratio to the baseline, or of flowrun itself."""
    beside: Mapping[str, Goal] = field(default_factory=dict)
    """Of the ratios to peers, by their names."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Runs to be held against each other."""

    name: str
    flowrun: Run
    baseline: Run | None
    """Without one, flowrun's own figures are all there is."""
    figures: Sequence[Figure]
    against: str = "floor"
    peers: Mapping[str, Run] = field(default_factory=dict)
    """Further sides. One that fails is left out with a line that says so."""
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    """What all runs need, made once."""
    once: bool = False
    """It takes long and says what it says in one run."""

    @property
    def sides(self) -> dict[str, Run]:
        """In the order in which they run."""
        baseline = {} if self.baseline is None else {self.against: self.baseline}
        return {OURS: self.flowrun} | baseline | dict(self.peers)


@dataclass(slots=True)
class Measurement:
    """A figure of all sides over several rounds of runs."""

    scenario: str
    name: str
    unit: str
    against: str
    goals: Mapping[str, Goal]
    """By the side they are about; flowrun's own name for what is wanted of itself."""
    sides: dict[str, list[float]] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)
    """The machine's load average after each round, our own share included."""

    def ratios(self, side: str) -> list[float]:
        """flowrun / ``side``, round by round."""
        return [ours / theirs for ours, theirs in zip(self.sides[OURS], self.sides[side], strict=True) if theirs]

    def met(self, side: str) -> bool:
        """Whether the goal about ``side`` was reached."""
        ratio = median(self.ratios(side)) if side != OURS else 1.0
        return self.goals[side].met(ratio, median(self.sides[OURS]))

    def lines(self) -> list[str]:
        """For people: one line, and one more for each peer."""
        busy = f" | BUSY, load {max(self.load):.1f}" if max(self.load) > BUSY * (os.cpu_count() or 1) else ""
        first = f"{self.scenario:<11}{self.name:<58} flowrun {_spread(self.sides[OURS], self.unit)}"
        first += self._judged(OURS)
        others = [side for side in self.sides if side != OURS]
        if self.against in others:
            first += self._beside(self.against)
        rest = [f"{'':<11}{'':<58}{self._beside(side)}" for side in others if side != self.against]
        return [first + busy, *rest]

    def _beside(self, side: str) -> str:
        return (
            f" | {side} {_spread(self.sides[side], self.unit)} | ratio {_spread(self.ratios(side), '')}"
            f"{self._judged(side)}"
        )

    def _judged(self, side: str) -> str:
        return f" | goal {self.goals[side]} {'met' if self.met(side) else 'MISSED'}" if side in self.goals else ""

    def record(self) -> dict[str, Any]:
        """For programs."""
        others = [side for side in self.sides if side != OURS]
        return {
            "scenario": self.scenario,
            "name": self.name,
            "unit": self.unit,
            "against": self.against,
            "sides": self.sides,
            "load": self.load,
            "ratios": {side: _summary(self.ratios(side)) for side in others if self.ratios(side)},
            "goals": {side: str(goal) for side, goal in self.goals.items() if side in self.sides},
            "met": {side: self.met(side) for side in self.goals if side in self.sides},
        }


def measure(scenario: str, contests: Sequence[Contest], runs: int, *, goals: bool = True) -> Iterator[Measurement]:
    """Run the contests: flowrun, baseline, peers, flowrun, baseline..., each in an event loop of its own.

    ``goals`` are about the full sizes.
    """
    for contest in contests:
        sides = contest.sides
        found = [_empty(scenario, contest, figure, goals) for figure in contest.figures]
        with contest.around():
            for _ in range(1 if contest.once else runs):
                for side, run in list(sides.items()):
                    try:
                        readings = _alone(run)
                    except Exception as error:
                        if side not in contest.peers:
                            raise
                        print(f"# {contest.name}: {side} is left out: {_brief(error)}", flush=True)
                        del sides[side]
                        continue
                    for figure, measurement in zip(contest.figures, found, strict=True):
                        if figure.key in readings:
                            measurement.sides.setdefault(side, []).append(readings[figure.key])
                for measurement in found:
                    measurement.load.append(os.getloadavg()[0])
        for measurement in found:
            measurement.sides = {side: values for side, values in measurement.sides.items() if side in sides}
            if OURS in measurement.sides:  # not every way to run has every figure
                yield measurement


def _empty(scenario: str, contest: Contest, figure: Figure, goals: bool) -> Measurement:
    name = f"{contest.name}{', ' if figure.label else ''}{figure.label}"
    wanted = dict(figure.beside)
    if figure.goal is not None:
        wanted[OURS if figure.goal.of_flowrun else contest.against] = figure.goal
    return Measurement(scenario, name, figure.unit, contest.against, wanted if goals else {})


def _alone(run: Run) -> Mapping[str, float]:
    gc.collect()
    return servers.run(_await(run))


async def _await(run: Run) -> Mapping[str, float]:
    return await run()


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[-400:]}"


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _spread(values: Sequence[float], unit: str) -> str:
    middle, low, high = (_number(value, unit) for value in (median(values), min(values), max(values)))
    return f"{middle}{' ' if unit else ''}{unit} ({low}..{high})"


def _number(value: float, unit: str) -> str:
    return (
        f"{value:,.0f}" if unit.endswith("/s") or value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"
    )
