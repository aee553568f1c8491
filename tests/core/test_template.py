"""A compiled dispatch survives being data: the same rows under new ids."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from flowrun import Flow, Flowrun, any_of, race
from flowrun.codec import dump
from flowrun.core import compile as compiler
from flowrun.core.template import from_template, placeholder, placeholders, tick_options, to_template
from flowrun.errors import ConfigurationError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def mint(count: int) -> tuple[UUID, list[UUID]]:
    return UUID(int=1 << 80), [UUID(int=(1 << 80) + number) for number in range(1, count + 1)]


@pytest.fixture
def app() -> Flowrun:
    return Flowrun("postgresql://nowhere/none")


def everything(app: Flowrun) -> Flow:
    """A flow that has one of each."""

    def job(name: str, **options: Any) -> Any:
        return app.job("step", {"name": name}, **options)

    flow = app.flow("all", tags=["a b", 'c"d'], deadline=60.0, priority=3)
    pay = flow.add(job("pay", attempts=2, delay=3.0, timeout=1.0), name="pay", compensate=job("refund"))
    ask = flow.wait_for("yes?", after=pay, timeout=5.0, answers=["yes", "no"], default="no")
    one = flow.add(job("one", start_by=30.0, limit=("k", 2)), after=ask.when("yes"), name="one")
    two = flow.add(job("two"), after=any_of(ask, pay.failed), name="two", optional=True)
    flow.add(job("won"), after=race(one, two), name="won", cleanup=True)
    flow.map(app.job("item"), pay.result["rows"], argument="row", name="rows")
    flow.sleep(1.0, after=pay)
    inner = app.flow("inner")
    inner.chain(job("i"), app.job("j", {"given": pay.result}))
    flow.add(inner, after=two)
    flow.on_failure(job("sorry"), name="sorry")
    return flow


def plain(plan: Any) -> dict[str, Any]:
    """A plan without what JSON leaves open."""
    jobs = [
        row._replace(**{
            name: None if getattr(row, name) is None else json.loads(getattr(row, name))
            for name in ("args", "bindings", "options")
        })
        for row in plan.jobs
    ]  # fmt: skip
    tests = [(*test[:3], json.loads(test[3])) for test in plan.tests]
    return {name: getattr(plan, name) for name in ("edges", "blocked", "flows", "deadlines", "keys")} | {
        "jobs": jobs,
        "tests": tests,
        "free": [row.id for row in plan.free],
    }


def test_a_flow_is_the_same_as_data(app: Flowrun) -> None:
    encode = app.client.encode
    written = to_template(
        compiler.compile_flow(everything(app), encode, dump, placeholders).plan, json.loads, "schedule"
    )
    stored = json.loads(dump(written))
    plan, id = from_template(stored, mint, dump, {})
    compiled = compiler.compile_flow(everything(app), encode, dump, mint)
    assert id == compiled.flow_id
    assert plain(plan) == plain(compiled.plan)
    again = to_template(compiler.compile_flow(everything(app), encode, dump, placeholders).plan, json.loads, "schedule")
    assert again == written
    text = "".join(map(str, plan.jobs + plan.tests))
    assert "00000000-0000-0000-0000-" not in text


def test_a_job_is_the_same_as_data(app: Flowrun) -> None:
    spec = app.job("step", {"name": "ü"}, queue="far", delay=5.0, start_by=9.0, tags=["x"], sequence="s")
    encode = app.client.encode
    written = to_template(compiler.compile_job(spec, encode, dump, placeholder), json.loads, "schedule")
    plan, id = from_template(json.loads(dump(written)), mint, dump, {})
    assert plain(plan) == plain(compiler.compile_job(spec, encode, dump, lambda: id))


def test_what_has_a_handler_knows_its_tick(app: Flowrun) -> None:
    compiled = compiler.compile_flow(everything(app), app.client.encode, dump, placeholders)
    plan, _ = from_template(
        to_template(compiled.plan, json.loads, "schedule"), mint, dump, tick_options("nightly", NOON)
    )
    knowing = {row.name for row in plan.jobs if row.options and '"schedule":"nightly"' in row.options}
    handlers = {row.name for row in plan.jobs if row.kind == 0}
    assert knowing == handlers | {"rows"}
    assert all(NOON.isoformat() in (row.options or "") for row in plan.jobs if row.name in knowing)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key": "k"}, "key="),
        ({"run_at": NOON}, "run_at="),
        ({"start_by": NOON}, "start_by="),
    ],
)
def test_what_makes_sense_once_only_is_refused(app: Flowrun, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"schedule 'x'.*{said}"):
        to_template(
            compiler.compile_job(app.job("step", **options), app.client.encode, dump, placeholder),
            json.loads,
            "schedule 'x'",
        )
    flow = app.flow("f", key="k") if said == "key=" else app.flow("f")
    if said == "key=":
        flow.add(app.job("step"))
    elif said == "run_at=":
        source = flow.add(app.job("step"))
        flow.map(app.job("item", **options), source.result, argument="row")
    else:
        flow.add(app.job("step", **options))
    with pytest.raises(ConfigurationError, match=f"schedule 'x'.*{said}"):
        to_template(compiler.compile_flow(flow, app.client.encode, dump, placeholders).plan, json.loads, "schedule 'x'")


def test_a_template_of_a_later_version_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="later version"):
        from_template({"version": 2, "jobs": []}, mint, dump, {})
