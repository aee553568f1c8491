"""Flows drawn as text: a tree for terminals, Mermaid for documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowrun.core.node import Node, Wait, When
from flowrun.core.references import references
from flowrun.core.states import Condition

if TYPE_CHECKING:
    from flowrun.core.flow import Flow

_WORDS = {Condition.SUCCEEDED: "", Condition.FAILED: "failed", Condition.FINISHED: "finished"}


def waits(flow: Flow, node: Node[Any]) -> list[tuple[str, str]]:
    """What ``node`` waits for: (name of the parent, word for the condition) in the order it was written."""
    found: dict[tuple[str, str], None] = {}
    for condition in node.after:
        for when, word in _whens(condition):
            found[_name(when), f"{word} {_asked(when)}".strip()] = None
    named = {name for name, _ in found}
    for name in _referenced(flow, node):
        if name not in named:
            found[name, ""] = None
    return list(found)


def tree(flow: Flow) -> str:
    """Each node under the first it waits for, with the others named behind it. Written without recursion."""
    children: dict[str | None, list[tuple[Node[Any], str]]] = {}
    known = {node.name for node in flow.nodes}
    for node in flow.nodes:
        parents = [(name, word) for name, word in waits(flow, node) if name in known]
        note = f" ({parents[0][1]})" if parents and parents[0][1] else ""
        also = ", ".join(f"{name} {word}".strip() for name, word in parents[1:])
        note += f" [also after {also}]" if also else ""
        children.setdefault(parents[0][0] if parents else None, []).append((node, note))
    lines = [flow.name]
    stack = [(node, note, "", last) for node, note, last in reversed(_marked(children.get(None, [])))]
    drawn: set[str] = set()
    while stack:
        node, note, indent, last = stack.pop()
        label = f"{node.name}{' (optional)' if _optional(node) else ''}{note}"
        lines.append(f"{indent}{'└── ' if last else '├── '}{label}")
        below = indent + ("    " if last else "│   ")
        if node.inner is not None:
            lines.extend(f"{below}: {line}" for line in tree(node.inner).splitlines()[1:])
        if node.name not in drawn:
            drawn.add(node.name)
            nested = _marked(children.get(node.name, []))
            stack.extend((child, text, below, end) for child, text, end in reversed(nested))
    return "\n".join(lines)


def mermaid(flow: Flow) -> str:
    """A ``flowchart TD`` whose arrows carry their conditions."""
    lines = ["flowchart TD"]
    _chart(flow, "n", "    ", lines)
    return "\n".join(lines) + "\n"


def _chart(flow: Flow, prefix: str, indent: str, lines: list[str]) -> None:
    ids = {node.name: f"{prefix}{number}" for number, node in enumerate(flow.nodes)}
    for node in flow.nodes:
        label = node.name.replace('"', "#quot;")
        if node.inner is None:
            lines.append(f'{indent}{ids[node.name]}["{label}"]')
        else:
            lines.append(f'{indent}subgraph {ids[node.name]}["{label}"]')
            _chart(node.inner, f"{ids[node.name]}_", indent + "    ", lines)
            lines.append(f"{indent}end")
    for node in flow.nodes:
        for name, word in waits(flow, node):
            if name in ids:
                arrow = f"-->|{word}|" if word else "-->"
                lines.append(f"{indent}{ids[name]} {arrow} {ids[node.name]}")


def _marked(items: list[tuple[Node[Any], str]]) -> list[tuple[Node[Any], str, bool]]:
    return [(node, note, number == len(items)) for number, (node, note) in enumerate(items, 1)]


def _optional(node: Node[Any]) -> bool:
    if node.optional is not None or node.spec is None:
        return bool(node.optional)
    return bool(node.spec.overrides.get("optional", node.spec.defaults.get("optional", False)))


def _asked(when: When) -> str:
    return _WORDS[when.condition] if when.test is None else f"when {when.test}"


def _whens(condition: Wait) -> list[tuple[When, str]]:
    if isinstance(condition, Node):
        return [(condition.succeeded, "")]
    if isinstance(condition, When):
        return [(condition, "")]
    count, whens = condition.count, condition.whens
    word = "first of" if condition.race else "any of" if count == 1 else f"{count} of {len(whens)}"
    return [(when, word) for when in whens]


def _name(when: When) -> str:
    return when.node if isinstance(when.node, str) else when.node.name


def _referenced(flow: Flow, node: Node[Any]) -> list[str]:
    if node.spec is None:
        return []
    found = references([*node.spec.args, *node.spec.kwargs.values()])
    return list(dict.fromkeys(parent.name for parent, _ in found if getattr(parent, "flow", None) is flow))
