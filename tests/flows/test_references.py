"""A result that is not there yet stands in arguments, and nowhere else: not in names, options or conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowrun import Flowrun, FlowrunError

USES: dict[str, Callable[[Flowrun, Any, Any], Any]] = {
    "text as a node's name": lambda app, flow, result: flow.add(app.job("ship"), name=f"ship {result}"),
    "a node's name": lambda app, flow, result: flow.add(app.job("ship"), name=result),
    "text as a key": lambda app, flow, result: app.job("ship").options(key=f"order {result.id}"),
    "text as a tag": lambda app, flow, result: app.job("ship").options(tags=["order " + result.id]),
    "a flow's name": lambda app, flow, result: app.flow(result),
    "a flow's key": lambda app, flow, result: app.flow("f", key=result),
    "a parent": lambda app, flow, result: flow.add(app.job("ship"), after=result),
    "a time to sleep": lambda app, flow, result: flow.sleep(result),
    **{
        f"option {option}": lambda app, flow, result, option=option: app.job("ship").options(**{option: result})
        for option in ("key", "queue", "tags", "priority", "delay", "run_at", "timeout", "attempts", "sequence")
    },
    "a tag": lambda app, flow, result: app.job("ship").options(tags=[result]),
    "a limit's key": lambda app, flow, result: app.job("ship").options(limit=(result, 1)),
    "a debounce's key": lambda app, flow, result: app.job("ship").options(debounce=(result, 1.0)),
}


@pytest.mark.parametrize("use", USES)
def test_a_result_that_is_not_there_yet_is_refused_outside_of_arguments(app: Flowrun, use: str) -> None:
    flow = app.flow("order")
    pay = flow.add(app.job("pay"), name="pay")
    with pytest.raises(FlowrunError, match=r"pay"):
        USES[use](app, flow, pay.result)
    assert [node.name for node in flow.nodes] == ["pay"]
