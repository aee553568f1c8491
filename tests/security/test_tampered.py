"""Rows that somebody with rights on the tables has changed: nothing in them is run, imported or unpickled."""

from __future__ import annotations

import base64
import json
import os
import pickle

import asyncpg
import pytest

from flowrun import Flowrun, JobFailed


class Evil:
    """Unpickled, it would end the process."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (77,)


PICKLED = base64.b64encode(pickle.dumps(Evil())).decode()
TAMPERED = [
    [1], "x", 5, None, {}, {"n": PICKLED}, {"n": 1, "more": 2}, {"n": {"py/object": "os.system", "py/reduce": [["os.system"], ["exit"]]}},
    {"n": {"__type__": "datetime", "__module__": "os"}},
]  # fmt: skip


async def test_stored_rows_that_were_tampered_with(app: Flowrun, connection: asyncpg.Connection) -> None:
    """Row 39: the job fails, with a clear error and without retries; the worker goes on."""

    @app.handler(attempts=5)
    async def add(n: int) -> int:
        return n + 1

    async with app:
        runs = [await add.dispatch(n=1) for _ in TAMPERED]
        for run, args in zip(runs, TAMPERED, strict=True):
            await connection.execute("update flowrun.jobs set args = $1 where id = $2", json.dumps(args), run.id)
        fine = await add.dispatch(n=1)
        results = [await add.dispatch(n=1) for _ in range(2)]
        async with app.worker(concurrency=2):
            for run in runs:
                with pytest.raises(JobFailed) as failure:
                    await run.result(timeout=30)
                assert failure.value.attempts == 1
                assert failure.value.error_type in ("flowrun.errors.InvalidArguments", "flowrun.errors.NotReadable")
            assert await fine.result(timeout=30) == 2
            for run, stored in zip(results, (PICKLED, {"py/object": "os.system"}), strict=True):
                await run.wait(timeout=30)
                await connection.execute(
                    "update flowrun.finished set result = $1 where id = $2", json.dumps(stored), run.id
                )
                assert await run.result(timeout=30) == stored  # data, whatever it says of itself
            assert await (await add.dispatch(n=1)).result(timeout=30) == 2
