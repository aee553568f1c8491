"""Random flows that grow, map, race, wait and undo, and what must become of them. Nothing here knows flowrun.

Written from the words of the public contract. Whatever is random in a flow is so arranged that the answer does not
depend on who is faster: what loses a race hangs until it is cancelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

SUCCEEDED, FAILED, CANCELLED, SKIPPED = "succeeded", "failed", "cancelled", "skipped"


@dataclass
class Edge:
    """From the step at ``index`` of the same flow: succeeded, failed, finished, or the text of a test of its result."""

    index: int
    condition: str = SUCCEEDED
    value: int | str = 0
    """For ``n >``: what a job's number is compared with. For ``is``: what a gate is to be answered."""


@dataclass
class Spawn:
    """What a job adds to its flow."""

    do: str = "well"
    after: int | None = None
    """Another spawned before; None: the job itself."""
    stored: int | None = None
    """A step before the job, of the same flow, that it waits for besides."""
    detached: bool = False
    optional: bool = False


@dataclass
class Step:
    name: str
    kind: str = "job"
    """job, map, gate, sleep, race or flow."""
    do: str = "well"
    """A job: well, fail, flaky, snooze, retry. A gate: signal, default, timeout. A race: first, second, neither. A map:
    finish, cancel."""
    racers: tuple[str, str] = ("job", "job")
    """A race that the first wins: what runs, job, tested, spawner, map, flow or gate; of the second also late, a flow that
    may not have begun."""
    after: list[Edge] = field(default_factory=list)
    either: list[Edge] = field(default_factory=list)
    """One of these besides; none: nothing."""
    optional: bool = False
    value: int = 0
    """A job's result has it."""
    items: list[str] = field(default_factory=list)
    """A job: what a map over its result is to do."""
    over: int = 0
    """A map: the job that has the items."""
    answer: str = "yes"
    spawns: list[Spawn] = field(default_factory=list)
    undo: str | None = None
    """well or flaky: what undoes the job."""
    pause: int = 0
    """Milliseconds."""
    steps: list[Step] = field(default_factory=list)
    """A flow's own."""


@dataclass
class Varied:
    steps: list[Step]
    again: bool = False
    """Retried when it failed, with everything mended that can be."""

    def size(self) -> int:
        return sum(1 for _ in walk(self.steps))


def walk(steps: list[Step], prefix: str = "") -> Iterator[tuple[str, Step]]:
    for step in steps:
        yield prefix + step.name, step
        yield from walk(step.steps, f"{prefix}{step.name}/")


# -- what becomes of them ------------------------------------------------------------------------------------------------


@dataclass
class Life:
    """A flow from its dispatch to its end; the second one begins with a retry."""

    states: dict[str, str] = field(default_factory=dict)
    """By full name, all that a status tells."""
    state: str = SUCCEEDED
    kept: Mapping[str, str] = field(default_factory=dict)
    """What a retry does not touch."""
    mended: bool = False
    before: Mapping[str, str] = field(default_factory=dict)
    """How the first life ended."""
    ancestors: dict[str, set[str]] = field(default_factory=dict)
    maybe: set[str] = field(default_factory=set)
    """Those that need not be there: the items of a map that may have lost a race before it became them."""

    def decide(self, name: str, state: str) -> str:
        self.states[name] = self.kept.get(name, state)
        return self.states[name]


def expect(flow: Varied) -> Life:
    life = Life()
    life.state = _steps(flow.steps, "", True, set(), life)
    return life


def expect_again(flow: Varied, first: Life) -> Life:
    """After a retry: what failed runs again and now does well; finished work is kept."""
    optional = {name for name, step in walk(flow.steps) if step.optional}
    optional |= {f"{name}-{n}" for name, step in walk(flow.steps) for n, s in enumerate(step.spawns) if s.optional}
    optional |= {
        f"{name}[{n}]" for name, step in walk(flow.steps) if step.kind == "map" and step.optional for n in range(9)
    }
    races = [f"{name}-b" for name, step in walk(flow.steps) if step.kind == "race"]
    forgiven = [name for name, step in walk(flow.steps) if step.kind == "flow" and first.states.get(name) == FAILED]
    forgiven = [name for name in forgiven if name in optional]
    kept = {
        name: state
        for name, state in first.states.items()
        if state == SUCCEEDED
        or (state == FAILED and name in optional)
        or (state == CANCELLED and any(_is_part(name, race) for race in races))
        or any(name.startswith(f"{inside}/") for inside in forgiven)
    }
    life = Life(kept=kept, mended=True, before=first.states)
    life.state = _steps(flow.steps, "", True, set(), life)
    return life


def _is_part(name: str, whole: str) -> bool:
    """Of a map or a flow, or that itself."""
    return name == whole or name.startswith((f"{whole}[", f"{whole}/"))


def undone(flow: Varied, life: Life) -> list[str]:
    """The jobs that are undone when the flow has failed."""
    if life.state != FAILED:
        return []
    return [name for name, step in walk(flow.steps) if step.undo and life.states.get(name) == SUCCEEDED]


def _steps(steps: list[Step], prefix: str, entered: bool, above: set[str], life: Life) -> str:
    guilty = False
    for step in steps:
        name = prefix + step.name
        before = set(above)
        sources = [e.index for e in [*step.after, *step.either]] + ([step.over] if step.kind == "map" else [])
        for index in sources:
            parent = prefix + steps[index].name
            before |= life.ancestors[parent] | {parent} | {x for x in life.ancestors if x.startswith(f"{parent}/")}
        life.ancestors[name] = before
        edges = [*step.after, *step.either, *([Edge(step.over)] if step.kind == "map" else [])]
        # What comes after others of its flow looks at those alone, unless one that is skipped could release it.
        runs = entered or (bool(edges) and all(edge.condition != "finished" for edge in edges))
        runs &= all(_satisfied(edge, steps, prefix, life) for edge in step.after)
        runs &= not step.either or any(_satisfied(edge, steps, prefix, life) for edge in step.either)
        # A choice of one is no choice, but an edge like others.
        plain = [*step.after, *(step.either if len(step.either) == 1 else [])]
        if step.kind == "map" and all(edge.index != step.over for edge in plain):
            runs &= _satisfied(Edge(step.over), steps, prefix, life)
        state = _step(step, steps, name, runs, before, life)
        guilty |= state == FAILED and not step.optional
        guilty |= any(
            life.states.get(f"{name}-{n}") == FAILED and not spawn.optional for n, spawn in enumerate(step.spawns)
        )
        guilty |= step.kind == "race" and FAILED in (life.states[f"{name}-a"], life.states[f"{name}-b"])
    return SKIPPED if not entered else FAILED if guilty else SUCCEEDED


def _step(step: Step, steps: list[Step], name: str, runs: bool, before: set[str], life: Life) -> str:
    if step.kind == "flow":
        return life.decide(name, _steps(step.steps, f"{name}/", runs, before, life))
    if step.kind == "race":
        a, b = {"first": (SUCCEEDED, CANCELLED), "second": (FAILED, SUCCEEDED), "neither": (FAILED, FAILED)}[step.do]
        if life.mended:
            a, b = SUCCEEDED, SKIPPED if step.do == "second" else CANCELLED
        a, b = (
            _racer(kind, f"{name}-{x}", s if runs else SKIPPED, runs, life)
            for kind, x, s in zip(step.racers, "ab", (a, b), strict=True)
        )
        return life.decide(name, SUCCEEDED if SUCCEEDED in (a, b) else SKIPPED)
    runs |= life.kept.get(name) == SUCCEEDED  # what has run is kept, whatever would be decided now
    if not runs and f"{name}[0]" not in life.before:
        return life.decide(name, SKIPPED)
    if step.kind == "map":
        source = life.states[name.removesuffix(step.name) + steps[step.over].name]
        if source != SUCCEEDED and f"{name}[0]" not in life.before:
            return life.decide(name, FAILED)  # it was to run all the same, and has no list
        items = steps[step.over].items
        ends = [
            life.decide(
                f"{name}[{n}]",
                SUCCEEDED if life.mended or do == "well" else FAILED if do == "fail" else CANCELLED,
            )
            for n, do in enumerate(items)
        ]
        spoiled = not all(end == SUCCEEDED or (end == FAILED and step.optional) for end in ends)
        return life.decide(name, SKIPPED if not runs else FAILED if spoiled else SUCCEEDED)
    if step.kind == "gate":
        return life.decide(name, FAILED if step.do == "timeout" else SUCCEEDED)
    state = life.decide(name, FAILED if step.do == "fail" and not life.mended else SUCCEEDED)
    if state == SUCCEEDED:
        ends = []
        for n, spawn in enumerate(step.spawns):
            waits = spawn.after is not None and not _well(ends[spawn.after], step.spawns[spawn.after].optional)
            if spawn.stored is not None:
                prefix = name.removesuffix(step.name)
                waits |= not _satisfied(Edge(spawn.stored), steps, prefix, life)
            fails = spawn.do == "fail" and not life.mended
            ends.append(life.decide(f"{name}-{n}", SKIPPED if waits else FAILED if fails else SUCCEEDED))
    return state


def _racer(kind: str, name: str, state: str, runs: bool, life: Life) -> str:
    """A racer, and what it is made of."""
    state = life.decide(name, state)
    if kind == "late":
        life.decide(f"{name}-slow", SUCCEEDED if runs else SKIPPED)
    if kind in ("flow", "late"):
        for inside in ("x", "y"):
            life.decide(f"{name}/{inside}", state)
    if kind == "spawner" and state == SUCCEEDED:
        life.decide(f"{name}-0", state)
    if kind == "map" and state != SKIPPED:
        for item in range(2):
            life.decide(f"{name}[{item}]", state)
            if state == CANCELLED:
                life.maybe.add(f"{name}[{item}]")
    return state


def _satisfied(edge: Edge, steps: list[Step], prefix: str, life: Life) -> bool:
    step = steps[edge.index]
    name = prefix + step.name
    state = life.states[name]
    if edge.condition in ("finished", FAILED):
        return edge.condition == "finished" or state == FAILED
    spawned = state != SUCCEEDED or all(
        _well(life.states[f"{name}-{n}"], spawn.optional) for n, spawn in enumerate(step.spawns) if not spawn.detached
    )
    if edge.condition == SUCCEEDED:
        return _well(state, step.optional) and spawned
    if edge.condition == "n >":
        passed = isinstance(edge.value, int) and step.value > edge.value
    else:
        passed = edge.value == ("no" if step.do == "default" else step.answer)
    return state == SUCCEEDED and passed and spawned


def _well(state: str, optional: bool) -> bool:
    return state == SUCCEEDED or (state == FAILED and optional)


# -- random ones ---------------------------------------------------------------------------------------------------------


def random_flow(random: Random, *, most: int = 14) -> Varied:
    again = random.random() < 0.4
    return Varied(_random_steps(random, random.randint(1, most), undo=not again, inner=False), again)


def _random_steps(random: Random, count: int, *, undo: bool, inner: bool) -> list[Step]:
    steps: list[Step] = []
    for number in range(count):
        step = Step(f"n{number}", optional=random.random() < 0.15)
        near = range(max(0, number - 5), number)
        if near:
            step.after = [_edge(random, steps, random.choice(near)) for _ in range(random.choice([0, 1, 1, 1, 2]))]
            if random.random() < 0.2:
                step.either = [_edge(random, steps, random.choice(near)) for _ in range(random.randint(1, 3))]
        step.after, step.either = _once(step.after), _once(step.either)
        _random_kind(random, step, steps, undo=undo, inner=inner)
        steps.append(step)
    return steps


def _once(edges: list[Edge]) -> list[Edge]:
    return list({(edge.index, edge.condition, edge.value): edge for edge in edges}.values())


def _random_kind(random: Random, step: Step, steps: list[Step], *, undo: bool, inner: bool) -> None:
    sources = [n for n, other in enumerate(steps) if other.kind == "job" and other.items and not other.optional]
    draw = random.random()
    if draw < 0.1 and (not inner or random.random() < 0.3):
        step.kind = "flow"
        step.steps = _random_steps(random, random.randint(1, 4), undo=undo, inner=True)
    elif draw < 0.2:
        step.kind, step.do = "gate", random.choice(["signal", "signal", "default", "timeout"])
        step.answer = random.choice(["yes", "no"])
    elif draw < 0.25:
        step.kind = "sleep"
    elif draw < 0.35:
        step.kind, step.optional = "race", False
        step.do = random.choice(["first", "first", "first", "second", "neither"])
        if step.do == "first":
            kinds = ["job", "spawner", "map", "flow", "gate"]
            step.racers = random.choice([*kinds, "tested"]), random.choice([*kinds, "late", "late"])
    elif draw < 0.5 and sources:
        step.kind, step.over = "map", random.choice(sources)
        if "hang" in steps[step.over].items:
            step.do, step.optional = "cancel", False
        else:
            step.do = "finish"
    else:
        step.do = random.choice(["well", "well", "well", "flaky", "fail", "snooze", "retry"])
        step.value = random.randint(0, 2)
        step.pause = random.choice([0, 0, 0, 2, 10])
        if random.random() < 0.3:
            step.items = random.choice([["well"], ["well", "fail", "well"], ["fail", "hang", "hang"], ["well"] * 5])
        if random.random() < 0.25:
            step.spawns = _random_spawns(random, range(max(0, len(steps) - 4), len(steps)))
        if undo and random.random() < 0.4:
            step.undo = random.choice(["well", "well", "flaky"])


def _random_spawns(random: Random, stored: range) -> list[Spawn]:
    return [
        Spawn(
            random.choice(["well", "well", "well", "flaky", "fail", "snooze"]),
            random.randrange(n) if n and random.random() < 0.5 else None,
            detached=random.random() < 0.25,
            optional=random.random() < 0.2,
            stored=random.choice(stored) if stored and random.random() < 0.5 else None,
        )
        for n in range(random.randint(1, 3))
    ]


def _edge(random: Random, steps: list[Step], index: int) -> Edge:
    step = steps[index]
    draw = random.random()
    if draw < 0.15 and step.kind == "job":
        return Edge(index, "n >", random.randint(0, 1))
    if draw < 0.5 and step.kind == "gate":
        return Edge(index, "is", random.choice(["yes", "no"]))
    return Edge(index, random.choice([SUCCEEDED] * 5 + [FAILED] + ["finished"] * 2))
