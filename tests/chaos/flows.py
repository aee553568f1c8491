"""What is dispatched: everything follows from its number, so that the checker can write it once more."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from flowrun import Flow, Flowrun, Node, backoff
from tests.chaos import computing
from tests.chaos.handlers import Troupe
from tests.chaos.journal import Journal
from tests.model.playing import Playground
from tests.model.varied import Varied, random_flow
from tests.model.wild import wild_flow

KINDS = {
    "varied": 12,
    "wild": 8,
    "relay": 16,
    "single": 14,
    "narrow": 8,
    "delayed": 4,
    "remembering": 5,
    "atomic": 6,
    "leading": 6,
    "hanging": 4,
    "keyed": 4,
    "bought": 5,
    "long": 4,
    "compute": 3,
    "failing": 3,
    "debounced": 4,
    "throttled": 4,
    "misbehaving": 4,
}
"""How often each kind is dispatched, in relation to the others."""

LIMITS = {"one": 1, "two": 2, "five": 5}
"""Of the jobs of kind narrow: how many may run at once, by key."""


@dataclass
class Relay:
    """A flow whose jobs hand on tokens: who was given what can be checked job by job."""

    after: list[list[int]]
    """By node: those it waits for, whose results it is given."""
    finished: list[list[int]]
    """By node: those it waits for however they end."""
    pauses: list[float]
    fails: list[int]

    def __len__(self) -> int:
        return len(self.after)


def relay(number: int) -> Relay:
    """A chain, a fan out and in, layers in which all wait for all, or any graph."""
    random = Random(number)
    shape = random.choice(["chain", "fan", "layers", "any", "any"])
    after: list[list[int]]
    if shape == "chain":
        after = [[n - 1] if n else [] for n in range(random.randint(2, 20))]
    elif shape == "fan":
        width = random.choice([3, 10, 40])
        after = [[], *([0] for _ in range(width)), list(range(1, width + 1))]
    elif shape == "layers":
        width, depth = random.randint(2, 6), random.randint(2, 4)
        after = [
            [] if layer == 0 else list(range((layer - 1) * width, layer * width))
            for layer in range(depth)
            for _ in range(width)
        ]
    else:
        after = [[p for p in range(n) if random.random() < 0.25] for n in range(random.randint(2, 16))]
    size = len(after)
    finished = [[p for p in range(n) if p not in after[n] and random.random() < 0.02] for n in range(size)]
    pauses = [random.choice([0.0, 0.0, 0.0, 0.01, 0.05, 0.2 if size < 10 else 0.0]) for _ in range(size)]
    fails = [random.choice([0] * 12 + [1, 2]) for _ in range(size)]
    return Relay(after, finished, pauses, fails)


def relay_flow(app: Flowrun, number: int) -> Flow:
    written = relay(number)
    flow = app.flow(f"relay {number}")
    nodes: list[Node[Any]] = []
    for n, parents in enumerate(written.after):
        given = [nodes[p].result["token"] for p in parents]
        job = app.job(
            "relay",
            {"number": number, "given": given, "pause": written.pauses[n], "fails": written.fails[n]},
            priority=number % 10,
        )
        after = [*(nodes[p] for p in parents), *(nodes[p].finished for p in written.finished[n])]
        nodes.append(flow.add(job, after=after or None, name=f"n{n}"))
    return flow


def varied(number: int) -> Varied:
    return random_flow(Random(number))


def varied_flow(app: Flowrun, journal: Journal, number: int) -> Flow:
    stage = Playground([Troupe(app, journal, "varied-")], None)  # type: ignore[list-item, arg-type]
    return stage._write(varied(number), number)


def wild_one(app: Flowrun, journal: Journal, number: int) -> Flow:
    random = Random(number)
    flow = wild_flow(random, Troupe(app, journal, "wild-"), random.randint(2, 12))  # type: ignore[arg-type]
    flow.name = f"wild {number}"
    return flow


def single(app: Flowrun, kind: str, number: int) -> Any:
    """A job without a flow."""
    random = Random(number)
    if kind == "narrow":
        key = random.choice(list(LIMITS))
        given = {"number": number, "key": key, "pause": random.choice([0.0, 0.02, 0.1])}
        return app.job("narrow", given, limit=(key, LIMITS[key]))
    if kind == "delayed":
        return app.job("relay", {"number": number, "given": []}, delay=delay(number))
    if kind == "keyed":
        return app.job("relay", {"number": number, "given": []}, key=f"key {number}")
    if kind == "long":
        # So long that another worker is not done with it when a stopped one wakes up.
        return app.job("relay", {"number": number, "given": [], "pause": random.uniform(1.0, 6.0)})
    if kind in ("single", "bought"):
        given = {"number": number, "given": [], "pause": random.choice([0.0, 0.0, 0.05, 0.5])}
        given["fails"] = random.choice([0, 0, 0, 1])
        return app.job("relay", given, backoff=backoff.constant(0.1), priority=random.randint(0, 9))
    if kind == "compute":
        # On a machine that has no time for it a process may take too long again and again.
        return app.job("compute", {"number": number}, attempts=40, timeout=computing.TIMEOUT)
    if kind == "debounced":
        return app.job("debounced", {"number": number}, debounce=(held_key(number), DEBOUNCE))
    if kind == "throttled":
        return app.job("throttled", {"number": number}, throttle=(held_key(number), THROTTLE))
    return app.job(kind, {"number": number})


DEBOUNCE, THROTTLE = 0.5, 2.0
"""Seconds."""


def held_key(number: int) -> str:
    """The key of what is debounced or throttled."""
    return f"held {number % 3}"


def delay(number: int) -> float:
    return Random(number).choice([0.05, 0.5, 2.0])


def single_key(number: int) -> str:
    """The limit's key of a job of kind narrow."""
    return Random(number).choice(list(LIMITS))
