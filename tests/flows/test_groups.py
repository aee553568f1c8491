"""Exceptions are recognised wherever they are named and raised; delays that are none spin nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowrun import ConfigurationError, Discard, NotStorable, Retry, Snooze, backoff
from flowrun.core.outcome import DEFAULT_BACKOFF, OVER, Again, Policy, decide

EXACT = backoff.constant(7.0, jitter=0.0)


class Declined(Exception):
    pass


class Harder(Declined):
    pass


NAME = f"{__name__}.Declined"


def group(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("several", errors)


@pytest.mark.parametrize(
    ("error", "rules", "follows"),
    [
        (group(Discard("no")), {}, OVER),
        (group(ValueError(), group(group(Discard("no")))), {}, OVER),
        (group(Snooze(5), NotStorable("", "no")), {}, OVER),
        (group(Snooze(5), Snooze(60)), {}, Again(60.0, 0)),
        (group(Snooze(5), Retry(9)), {}, Again(9.0, 1)),
        (group(Snooze(5), ValueError()), {}, Again(7.0, 1)),
        (group(Snooze(60), ValueError()), {}, Again(60.0, 1)),
        (group(Retry(), Retry(1)), {}, Again(1.0, 1)),
        (group(OSError(), group(Harder())), {"give_up_on": (NAME,)}, OVER),
        (group(OSError(), ConnectionError()), {"retry_on": ("builtins.OSError",)}, Again(7.0, 1)),
        (group(OSError(), ValueError()), {"retry_on": ("builtins.OSError",)}, OVER),
        (group(OSError(), ValueError()), {"retry_on": ("builtins.BaseExceptionGroup",)}, Again(7.0, 1)),
        (group(asyncio.CancelledError(), Snooze(5)), {}, Again(5.0, 0)),
    ],
)
def test_of_a_group_the_strictest_counts(error: BaseException, rules: dict[str, Any], follows: object) -> None:
    assert decide(error, 1, Policy(backoff=EXACT, **rules), 0.5) == follows


@pytest.mark.parametrize("delay", [-5, -0.001, float("nan"), float("inf"), True, "60", None, timedelta(-1), [1]])
def test_a_delay_that_is_none_is_refused_where_it_is_made(delay: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Snooze\(delay\) takes a number of seconds, 0 or more"):
        Snooze(delay)
    if delay is not None:
        with pytest.raises(ConfigurationError, match=r"Retry\(delay\)"):
            Retry(delay)


@pytest.mark.parametrize("answer", [None, "soon", float("nan"), -4, True, timedelta(-1)])
def test_a_backoff_that_answers_with_no_delay_is_the_default(answer: Any) -> None:
    expected = DEFAULT_BACKOFF(2)
    assert decide(ValueError(), 2, Policy(backoff=lambda _: answer), 0.5) == Again(expected, 2)


async def test_in_a_task_group(app) -> None:
    async def stop() -> None:
        raise Discard("the order was deleted")

    @app.handler(attempts=5, backoff=backoff.constant(0.0))
    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stop())

    @app.handler(attempts=3, backoff=backoff.constant(0.0))
    async def wait() -> None:
        raise Snooze(float("nan"))

    async with app.worker(concurrency=1):
        status = await (await work.dispatch()).wait(timeout=10)
        assert (status.state, status.attempts) == ("failed", 1)
        status = await (await wait.dispatch()).wait(timeout=10)
        assert (status.state, status.attempts) == ("failed", 3)


PROGRAM = """
import asyncio
from flowrun import Flowrun, backoff

app = Flowrun()

class Declined(Exception): ...

@app.handler(process=True, attempts=5, backoff=backoff.constant(0.0), give_up_on=Declined)
def inside() -> None:
    raise Declined("no")

@app.handler(process=True, attempts=5, backoff=backoff.constant(0.0), give_up_on=Declined)
def grouped() -> None:
    raise ExceptionGroup("several", [ExceptionGroup("inner", [Declined("no")])])

@app.handler(attempts=5, backoff=backoff.constant(0.0))
async def later() -> None:
    raise Declined("no")

async def main() -> None:
    async with app.worker(concurrency=1):
        for handler in (inside, grouped):
            print((await (await handler.dispatch()).wait(timeout=20)).attempts)
    async with app:
        run = await later.job().options(give_up_on=Declined).dispatch()
        print(run.id)

if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_named_in_a_script_raised_in_a_process_or_in_another_program(
    dsn: str, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "shopping.py").write_text(PROGRAM)
    monkeypatch.setenv("FLOWRUN_DSN", dsn)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "shopping.py"], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    inside, grouped, id = done.stdout.split()
    assert (inside, grouped) == ("1", "1"), done.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    import shopping

    async with shopping.app.worker(concurrency=1):
        status = await (await shopping.app.get_job(id)).wait(timeout=20)
    assert (status.state, status.attempts) == ("failed", 1)
