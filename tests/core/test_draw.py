"""Flows drawn as text."""

from __future__ import annotations

from xml.etree import ElementTree

from flowrun import any_of, at_least
from flowrun.core.flow import Flow
from flowrun.core.job import JobSpec


def order() -> Flow:
    flow = Flow("order")
    pay = flow.add(JobSpec("pay"))
    mail = flow.add(JobSpec("mail"), after=pay)
    invoice = flow.add(JobSpec("invoice", (), {"receipt": pay.result}), after=mail, optional=True)
    stock = flow.add(JobSpec("stock"), after=mail)
    flow.add(JobSpec("ware"), after=[invoice.finished, stock])
    flow.add(JobSpec("sorry"), after=pay.failed)
    return flow


def test_tree() -> None:
    assert str(order()) == "\n".join(
        [
            "order",
            "└── pay",
            "    ├── mail",
            "    │   ├── invoice (optional) [also after pay]",
            "    │   │   └── ware (finished) [also after stock]",
            "    │   └── stock",
            "    └── sorry (failed)",
        ]
    )


def test_joins_and_inner_flows_in_the_tree() -> None:
    flow, inner = Flow("f"), Flow("inner")
    a, b = flow.group(JobSpec("a"), JobSpec("b"))
    inner.chain(JobSpec("x"), JobSpec("y"))
    flow.add(inner, after=any_of(a, b.failed))
    flow.add(JobSpec("c"), after=at_least(2, a, b, "inner"))
    assert str(flow) == "\n".join(
        [
            "f",
            "├── a",
            "│   ├── inner (any of) [also after b any of failed]",
            "│   │   : └── x",
            "│   │   :     └── y",
            "│   └── c (2 of 3) [also after b 2 of 3, inner 2 of 3]",
            "└── b",
        ]
    )


def test_mermaid() -> None:
    assert order().mermaid().splitlines() == [
        "flowchart TD",
        '    n0["pay"]',
        '    n1["mail"]',
        '    n2["invoice"]',
        '    n3["stock"]',
        '    n4["ware"]',
        '    n5["sorry"]',
        "    n0 --> n1",
        "    n1 --> n2",
        "    n0 --> n2",
        "    n1 --> n3",
        "    n2 -->|finished| n4",
        "    n3 --> n4",
        "    n0 -->|failed| n5",
    ]


def test_mermaid_of_an_inner_flow_is_a_subgraph() -> None:
    flow, inner = Flow("f"), Flow('in"ner')
    inner.add(JobSpec("x"))
    flow.add(inner, after=flow.add(JobSpec("a")))
    assert flow.mermaid().splitlines() == [
        "flowchart TD",
        '    n0["a"]',
        '    subgraph n1["in#quot;ner"]',
        '        n1_0["x"]',
        "    end",
        "    n0 --> n1",
    ]


def test_a_chain_of_ten_thousand_can_be_drawn_as_mermaid() -> None:
    flow = Flow("f")
    flow.chain([JobSpec("a")] * 10_000)
    assert len(flow.mermaid().splitlines()) == 20_000


def test_an_unknown_name_or_a_cycle_does_not_hinder_drawing() -> None:
    flow = Flow("f")
    flow.add(JobSpec("a"), after="nobody")
    flow.add(JobSpec("b"), after="c")
    flow.add(JobSpec("c"), after="b")
    assert "a" in str(flow)
    assert "flowchart" in flow.mermaid()


def test_svg() -> None:
    flow = Flow("order <42> & more")
    pay = flow.add(JobSpec("pay"), name="pay")
    inner = Flow("inner")
    a = inner.add(JobSpec("a"), name="a")
    inner.add(JobSpec("b"), after=a.finished, name="b")
    node = flow.add(inner, after=pay, name="fulfil")
    flow.add(JobSpec("sorry"), after=pay.failed, name="sorry")
    flow.add(JobSpec("last"), after=[node, pay], name="last")
    picture = flow.svg()
    root = ElementTree.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    labels = {text.text: (float(text.get("x", 0)), float(text.get("y", 0))) for text in root.iter(f"{space}text")}
    assert {"order <42> & more", "pay", "fulfil", "a", "b", "sorry", "last", "failed", "finished"} == set(labels)
    assert labels["pay"][0] < labels["fulfil"][0] <= labels["a"][0] < labels["b"][0] < labels["last"][0]
    assert labels["sorry"][1] != labels["fulfil"][1]
    assert len([path for path in root.iter(f"{space}path") if "edge" in path.get("class", "")]) == 5
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for box in root.iter(f"{space}rect"):
        assert float(box.get("x", 0)) + float(box.get("width", 0)) <= width
        assert float(box.get("y", 0)) + float(box.get("height", 0)) <= height
    assert flow.svg() == picture


def test_svg_of_nothing_and_of_a_long_chain() -> None:
    assert "<svg" in Flow("empty").svg()
    flow = Flow("long")
    flow.chain([JobSpec("step")] * 3000)
    assert flow.svg().count("<rect") == 3000
