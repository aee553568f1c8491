"""DBOS Transact: async workflows on a database-backed queue.

Chains are workflows of many steps, a fan is a workflow that starts others and waits for them: its own shapes, run in
the dispatching process. Many are dispatched in one transaction of the caller, its documented way to batch.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import sqlalchemy
from dbos import DBOS, DBOSClient
from slot import Slot, asked, now

DSN = os.environ["DSN"]
POLL = 0.01
PART = 1_000

DBOS(
    config={
        "name": "bench",
        "system_database_url": DSN,
        "sys_db_pool_size": 20,
        "log_level": "ERROR",
        "application_version": "v1",
        "executor_id": f"e{os.environ.get('BENCH_SLOT', '0')}",
    }
)
slot: Slot


@DBOS.workflow(name="noop")
async def noop() -> None:
    slot.hit()


@DBOS.workflow(name="late")
async def late(sent: int) -> None:
    slot.hit(sent)


@DBOS.step()
async def step(number: int) -> dict[str, int]:
    return {"number": number}


@DBOS.workflow(name="chain")
async def chain(length: int) -> None:
    for number in range(length):
        await step(number)


@DBOS.workflow(name="child")
async def child(number: int) -> int:
    return number


@DBOS.workflow(name="fan")
async def fan(width: int) -> int:
    handles = [await DBOS.start_workflow_async(child, number) for number in range(width)]
    return len([await handle.get_result() for handle in handles])


async def work() -> None:
    global slot
    slot = Slot()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.sleep(1.2)
    print("READY", flush=True)
    await stop.wait()


async def flows(verb: str, numbers: list[int]) -> None:
    await asyncio.sleep(1.5)
    await (await DBOS.start_workflow_async(chain, 3)).get_result()  # warms its pools
    start = now()
    if verb == "chains":
        handles = await asyncio.gather(*[DBOS.start_workflow_async(chain, numbers[1]) for _ in range(numbers[0])])
        await asyncio.gather(*[handle.get_result() for handle in handles])
    else:
        await (await DBOS.start_workflow_async(fan, numbers[0])).get_result()
    print("TOOK", (now() - start) / 1e9, flush=True)


def dispatch(client: DBOSClient, jobs: int) -> None:
    engine = sqlalchemy.create_engine(DSN.replace("postgresql://", "postgresql+psycopg://"))
    start = now()
    for at in range(0, jobs, PART):
        with engine.begin() as connection:
            for _ in range(min(PART, jobs - at)):
                client.enqueue_in_transaction(connection, {"workflow_name": "noop", "queue_name": "bench"})
    print((now() - start) / 1e9)


async def main() -> None:
    verb, numbers = asked()
    if verb in {"setup", "worker", "chains", "fan"}:
        DBOS.launch()
        await DBOS.register_queue_async("bench", polling_interval_sec=POLL)
        if verb == "worker":
            await work()
        elif verb != "setup":
            await flows(verb, numbers)
        sys.stdout.flush()
        os._exit(0)  # its threads would be waited for
    client = DBOSClient(system_database_url=DSN)
    if verb == "dispatch":
        dispatch(client, *numbers)
    elif verb == "latency":
        for _ in range(numbers[0]):
            await client.enqueue_async({"workflow_name": "late", "queue_name": "bench"}, now())
            await asyncio.sleep(numbers[1] / 1e3)
    client.destroy()


asyncio.run(main())
