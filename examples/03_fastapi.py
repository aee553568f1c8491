"""A web app with its worker inside: nothing else to start. Run it: `uvicorn 03_fastapi:api`, then

curl -X POST 'localhost:8000/reports?title=sales'
curl localhost:8000/reports/<id>
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from fastapi import FastAPI, HTTPException

from flowrun import Flowrun, NotFound

app = Flowrun()
api = FastAPI(
    lifespan=app.lifespan
)  # pool and worker; `app.lifespan_without_worker` where `flowrun serve` runs the jobs


@app.handler(attempts=5, timeout=60.0)
async def collect(title: str) -> list[int]:
    await asyncio.sleep(0.2)
    return [len(title), 42]


@app.handler
async def publish(title: str, numbers: list[int]) -> str:
    return f"{title}: {sum(numbers)}"


@api.post("/reports", status_code=202)
async def order_report(title: str) -> dict[str, UUID]:
    """Answer at once; the work goes on, and survives a restart."""
    flow = app.flow(f"report-{title}")
    numbers = flow.add(collect.job(title))
    flow.add(publish.job(title, numbers.result))
    run = await flow.dispatch()
    return {"id": run.id}


@api.get("/reports/{id}")
async def report(id: UUID) -> dict[str, Any]:
    try:
        run = await app.get_flow(id)
    except NotFound as error:
        raise HTTPException(404, str(error)) from None
    status = await run.status()
    done = status.state == "succeeded"
    jobs = {name: job.state for name, job in status.nodes.items()}
    return {"state": status.state, "jobs": jobs, "result": await run.result() if done else None}
