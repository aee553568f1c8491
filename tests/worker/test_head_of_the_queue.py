"""What stands before the mark that a worker claims from is found in time, also by a worker whose loop was blocked."""

from __future__ import annotations

import asyncio
import time

from flowrun import Flowrun


async def test_a_loop_that_was_blocked_looks_at_the_head_again(dsn: str) -> None:
    """The end of a flow has a lower id than its nodes: a claim from the mark, where the last node was, passes it by."""
    app = Flowrun(dsn, poll=0.5)
    flow = app.flow("f")
    flow.wait_for("go", name="gate")
    async with app.worker():
        run = await flow.dispatch()
        await asyncio.sleep(0)  # a claim is under way
        time.sleep(2.0)  # noqa: ASYNC251 - what a handler should not do
        await run.signal("go")
        assert await run.result(timeout=20) is None
