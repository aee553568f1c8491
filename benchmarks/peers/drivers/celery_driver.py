"""Celery on Redis: two processes (one where latency is measured), acks_late, prefetch 500, plain functions.

It has no coroutines. Chains are its canvas, a fan is a chord, whose results stand in Redis.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import redis
from celery import Celery, chain, chord
from celery.signals import worker_process_init
from slot import PAUSE, WARM_UP, Slot, asked, now

ADDRESS = "redis://" + os.environ["REDIS"]

app = Celery("celery_driver", broker=ADDRESS + "/0", backend=ADDRESS + "/1")
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=500,
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    worker_redirect_stdouts=False,
    worker_send_task_events=False,
)
slot: Slot


@worker_process_init.connect
def begin(**_) -> None:
    global slot
    from billiard import current_process

    process = int(os.environ.get("BENCH_SLOT", "0")) * 3 + getattr(current_process(), "index", 0)
    os.environ["BENCH_SLOT"] = str(process)
    slot = Slot()


@app.task(name="noop")
def noop() -> None:
    slot.hit()


@app.task(name="late")
def late(sent: int) -> None:
    slot.hit(sent)


@app.task(name="last")
def last() -> None:
    slot.hit()
    slot.end()


@app.task(name="child", ignore_result=False)
def child() -> int:
    slot.hit()
    return 1


@app.task(name="join")
def join(results: list[int]) -> None:
    slot.end()


def work() -> None:
    os.chdir(Path(__file__).parent)
    threading.Timer(4, lambda: print("READY", flush=True)).start()
    processes = "1" if os.environ.get("BENCH_WANTED") else "2"
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    name = f"w{os.environ.get('BENCH_SLOT', '0')}@%h"
    app.worker_main(["worker", "-P", "prefork", "-c", processes, "-l", "ERROR", *quiet, "-n", name])


def chains(number: int, length: int) -> None:
    for _ in range(number):
        chain(*[noop.si() for _ in range(length - 1)], last.si()).apply_async()


def main() -> None:
    verb, numbers = asked()
    if verb in {"chains", "fan"}:
        chains(*WARM_UP)
        time.sleep(PAUSE)
    start = now()
    if verb == "setup":
        redis.Redis.from_url(ADDRESS).flushall()
    elif verb == "worker":
        work()
    elif verb == "dispatch":
        with app.producer_pool.acquire(block=True) as producer:
            for _ in range(numbers[0]):
                noop.apply_async(producer=producer, ignore_result=True)
        print((now() - start) / 1e9)
    elif verb == "latency":
        for _ in range(numbers[0]):
            late.apply_async((now(),))
            time.sleep(numbers[1] / 1e3)
    elif verb == "chains":
        chains(*numbers)
        print(start)
    elif verb == "fan":
        chord([child.si() for _ in range(numbers[0])])(join.s())
        print(start)


if __name__ == "__main__":
    main()
