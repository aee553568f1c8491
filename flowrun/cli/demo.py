"""``flowrun demo``: the order flow of ``examples/order_pipeline.py``, drawn live."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import secrets
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live

import flowrun
from flowrun.cli import terminal
from flowrun.cli.database import opened
from flowrun.cli.drawing import picture, written_lines
from flowrun.cli.exits import FAILED, OK, UsageError
from flowrun.client.runs import FlowRun
from flowrun.client.specs import Flow
from flowrun.client.statuses import FlowStatus

_ROWS = """
    select 'demo_orders ' || to_jsonb(o)::text from demo_orders o where id = $1
    union all select 'demo_inventory ' || to_jsonb(i)::text from demo_inventory i where order_id = $1
"""
DATABASE = "flowrun_demo"
"""The demo's own on the embedded PostgreSQL: its failures are no project's."""
_FRAME = 0.08
_LIMIT = 60.0


def demo(
    *,
    fail: Annotated[str | None, Parameter(help="Let this node fail, to see what then happens downstream.")] = None,
    keep: Annotated[bool, Parameter(help="Keep PostgreSQL running until you press Enter, to look inside.")] = False,
    dsn: Annotated[str | None, Parameter(help="The database; default: the embedded PostgreSQL.")] = None,
) -> int:
    """Run an order from the payment to the warehouse, drawn live: real handlers, real rows, real files."""
    example = _example()
    nodes = [node.name for node in example.order_flow(0).nodes]
    if fail is not None and fail not in nodes:
        raise UsageError(f"--fail {fail}: there is no such node; the flow has {', '.join(nodes)}")
    example.FILES = Path(tempfile.mkdtemp(prefix="flowrun-demo-"))
    _log_to(example.FILES / "flowrun.log")
    with opened(dsn, database=os.environ.get("FLOWRUN_EMBEDDED_DATABASE") or DATABASE) as address:
        example.app.use_dsn(address)
        code = asyncio.run(_run(example, fail))
        if keep:
            terminal.say(f"PostgreSQL keeps running: psql '{address}' (press Enter to stop)")
            with suppress(KeyboardInterrupt):
                sys.stdin.readline()
    return code


async def _run(example: Any, fail: str | None) -> int:
    console = terminal.console()
    order_id = 1000 + secrets.randbelow(1_000_000)
    flow: Flow = example.order_flow(order_id, fail)
    flow.defaults["queue"] = queue = f"demo-{order_id}"  # for this worker only: demos may run side by side
    async with example.app as app:
        await example.prepare()
        async with app.worker(concurrency=4, queues=[queue]):
            run = await flow.dispatch()
            try:
                status = await _watch(console, flow, run)
            except TimeoutError:
                raise flowrun.FlowrunError(f"no end after {_LIMIT:.0f} s; see {example.FILES}/flowrun.log") from None
            if not console.is_terminal:
                _draw(console, flow, status)
            if status.state == "succeeded":
                terminal.show(f"\nresult  {await run.result(timeout=5)}")
        async with example.database() as db:
            rows = [row[0] for row in await db.fetch(_ROWS, order_id)]
    for path in sorted(example.FILES.iterdir()):
        terminal.show(f"file    {path}")
    for row in rows:
        terminal.show(f"row     {row}")
    terminal.show(f"code    {example.__file__}")
    return _verdict(status, fail)


async def _watch(console: Console, flow: Flow, run: FlowRun) -> FlowStatus:
    """Draw until the flow has ended; its last status."""
    if not console.is_terminal:
        return await run.wait(timeout=_LIMIT)
    async with asyncio.timeout(_LIMIT):
        with Live(console=console, auto_refresh=False) as live:
            while True:
                status = await run.status()
                tree = picture(written_lines(flow), status, datetime.now(UTC), ascii_only=_ascii(console))
                live.update(tree, refresh=True)
                if status.state != "running":
                    return status
                await asyncio.sleep(_FRAME)


def _draw(console: Console, flow: Flow, status: FlowStatus) -> None:
    console.print(picture(written_lines(flow), status, datetime.now(UTC), ascii_only=_ascii(console)))


def _ascii(console: Console) -> bool:
    return console.options.ascii_only


def _verdict(status: FlowStatus, fail: str | None) -> int:
    """0 when what failed is what was asked to fail; the problem e-mail is only tried after a failed payment."""
    asked = {"send_problem_email", "charge_payment"} if fail == "send_problem_email" else {fail} - {None}
    failed = {name for name, job in status.nodes.items() if job.state == "failed"}
    if failed == asked:
        return OK
    terminal.complain(f"{', '.join(sorted(failed)) or 'nothing'} failed, which was not the plan")
    return FAILED


def _example() -> Any:
    """The module of the example: inside the package once installed, beside it in a checkout."""
    package = Path(flowrun.__file__).parent
    places = [folder / "examples" / "order_pipeline.py" for folder in (package, package.parent)]
    for path in places:
        if path.is_file():
            spec = importlib.util.spec_from_file_location("order_pipeline", path)
            if spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                sys.modules[spec.name] = module
                spec.loader.exec_module(module)
                return module
    raise flowrun.FlowrunError(f"this installation lacks the example: no {' and no '.join(map(str, places))}")


def _log_to(path: Path) -> None:
    """The failed attempts are part of the show: their log goes to a file, not into the picture."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(terminal.LOG_FORMAT))
    logger = logging.getLogger("flowrun")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
