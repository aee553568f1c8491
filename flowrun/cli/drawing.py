"""A flow run as a tree for the terminal: each node under the first it waits for, with state, attempts and time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from rich.text import Text
from rich.tree import Tree

from flowrun.client.statuses import FlowStatus, JobStatus
from flowrun.core.draw import waits
from flowrun.core.flow import Flow, Node
from flowrun.core.states import Condition

STYLES: Mapping[str, tuple[str, str, str]] = {
    "waiting": ("·", ".", "dim"),
    "scheduled": ("◷", "~", "yellow"),
    "ready": ("○", "o", "cyan"),
    "running": ("●", "*", "bold cyan"),
    "succeeded": ("✔", "+", "green"),
    "failed": ("✘", "x", "bold red"),
    "cancelled": ("■", "#", "magenta"),
    "skipped": ("↷", "-", "dim"),
}
"""Of each state: its symbol, the same in ASCII, and its colour."""


class Line(NamedTuple):
    """A node in the tree."""

    name: str
    """As in the status: ``inner/step`` for those of a flow inside."""
    depth: int
    note: str
    """What else it waits for."""


def picture(lines: Sequence[Line], status: FlowStatus, now: datetime, *, ascii_only: bool = False) -> Tree:
    """A flow as it stands at ``now``; ``lines`` come from :func:`written_lines` or :func:`stored_lines`."""
    width = max((4 * line.depth + len(line.name) for line in lines), default=0)
    tree = Tree(_head(status, now, ascii_only=ascii_only), guide_style="dim")
    above = [tree]
    for line in lines:
        label = Text(no_wrap=True, overflow="ellipsis")
        job = status.nodes.get(line.name)
        padded = line.name.ljust(width - 4 * line.depth)
        if job is None:  # a flow inside: its nodes tell
            label.append(f"  {padded}")
        else:
            symbol, plain, style = STYLES[job.state]
            label.append(f"{plain if ascii_only else symbol} {padded}  {job.state:<9}", style)
            label.append(f"  {_attempts(job):<10}  {_time(job, now):>7}{'  optional' if job.optional else ''}")
            label.append(f"  {_why(job, now)}".rstrip(), "red" if job.state == "failed" else "dim")
        label.append(line.note, "dim")
        del above[line.depth :]
        above.append(above[-1].add(label))
    return tree


def written_lines(flow: Flow) -> list[Line]:
    """The nodes of a flow as its program wrote it."""
    return list(_lines(flow, "", 1))


def stored_lines(status: FlowStatus, waits: Iterable[tuple[str, str, int]]) -> list[Line]:
    """The nodes of a flow as it is stored: ``waits`` are name, name of one it waits for, condition."""
    parents: dict[str, dict[str, str]] = {}
    for name in status.nodes:
        steps = _steps(name)
        for depth in range(1, len(steps) + 1):  # a flow inside is a line too, with its nodes below
            parents.setdefault("/".join(steps[:depth]), {})
    for child, parent, condition in waits:
        pair = _side_by_side(child, parent)
        if pair is not None and pair[1] in parents:
            word = "failed" if condition == Condition.FAILED else ""
            parents.setdefault(pair[0], {}).setdefault(pair[1], word)
    drawn_under = {name: next(iter(found), None) for name, found in parents.items()}
    under: dict[tuple[str, str | None], list[str]] = {}
    for name in parents:
        under.setdefault((_inside(name), drawn_under[name]), []).append(name)
    lines: list[Line] = []
    drawn: set[str] = set()
    stack = [(name, 1) for name in reversed(under.get(("", None), []))]
    left = iter(parents)
    while True:
        while stack:
            name, depth = stack.pop()
            if name in drawn:
                continue
            drawn.add(name)
            above = set(_climb(drawn_under, drawn_under[name]))
            notes = [_note(other, word) for other, word in parents[name].items() if word or other not in above]
            lines.append(Line(name, depth, f"  ({', '.join(notes)})" if notes else ""))
            below = under.get((_inside(name), name), [])
            stack.extend((child, depth + 1) for child in reversed(below))
            stack.extend((child, depth + 1) for child in reversed(under.get((name, None), [])))
        # Names with slashes of their own can look like flows that wait for each other: nothing is left out for that.
        lost = next((name for name in left if name not in drawn), None)
        if lost is None:
            return lines
        stack.append((lost, 1))


def _steps(name: str) -> list[str]:
    """A name as it leads through flows inside. A slash at an end, or two together, are part of a node's own name."""
    steps = name.split("/")
    return steps if all(steps) else [name]


def _inside(name: str) -> str:
    return "/".join(_steps(name)[:-1])


def _side_by_side(child: str, parent: str) -> tuple[str, str] | None:
    """The two at the level where their paths part; None where one is inside the other."""
    ours, theirs = _steps(child), _steps(parent)
    for depth, (mine, its) in enumerate(zip(ours, theirs, strict=False), 1):
        if mine != its:
            return "/".join(ours[:depth]), "/".join(theirs[:depth])
    return None


def _lines(flow: Flow, prefix: str, depth: int) -> Iterator[Line]:
    """The nodes, parents before children; without recursion but for flows inside flows."""
    under: dict[str | None, list[tuple[Node[Any], str]]] = {}
    drawn_under: dict[str, str | None] = {}
    known = {node.name for node in flow.nodes}
    for node in flow.nodes:
        parents = [(name, word) for name, word in waits(flow, node) if name in known]
        first = parents[0][0] if parents else None
        drawn_under[node.name] = first
        above = set(_climb(drawn_under, first))
        notes = [_note(name, word) for name, word in parents if word == "failed" or name not in above]
        under.setdefault(first, []).append((node, f"  ({', '.join(notes)})" if notes else ""))
    stack = [(node, note, depth) for node, note in reversed(under.get(None, []))]
    while stack:
        node, note, at = stack.pop()
        yield Line(prefix + node.name, at, note)
        if node.inner is not None:
            yield from _lines(node.inner, f"{prefix}{node.name}/", at + 1)
        stack.extend((child, text, at + 1) for child, text in reversed(under.get(node.name, [])))


def _note(name: str, word: str) -> str:
    return f"if {name} failed" if word == "failed" else f"after {name} {word}".rstrip()


def _climb(drawn_under: Mapping[str, str | None], name: str | None) -> Iterator[str]:
    """``name`` and what it is drawn under, up to the top; a cycle, which cannot be dispatched, ends it too."""
    seen: set[str] = set()
    while name is not None and name not in seen:
        seen.add(name)
        yield name
        name = drawn_under.get(name)


def _head(status: FlowStatus, now: datetime, *, ascii_only: bool) -> Text:
    symbol, plain, style = STYLES[status.state]
    seconds = ((status.finished_at or now) - status.created_at).total_seconds()
    return Text.assemble(
        (f"{plain if ascii_only else symbol} ", style), (status.name, "bold"), (f"  {status.state}", style),
        f"  {max(seconds, 0.0):.2f} s",
    )  # fmt: skip


def _attempts(job: JobStatus) -> str:
    return f"{job.attempt} attempt{'s' if job.attempt > 1 else ''}" if job.attempt else ""


def _time(job: JobStatus, now: datetime) -> str:
    if job.started_at is None or job.state == "scheduled":
        return ""
    return f"{max(((job.finished_at or now) - job.started_at).total_seconds(), 0.0):.2f} s"


def _why(job: JobStatus, now: datetime) -> str:
    if job.state == "scheduled" and job.run_at is not None:
        what = "again" if job.attempt else "runs"
        return f"{what} in {max((job.run_at - now).total_seconds(), 0.0):.1f} s"
    reason = (job.error or "").partition("\n")[0]
    return f"{job.error_type}: {reason}" if job.state == "failed" and job.error_type else reason
