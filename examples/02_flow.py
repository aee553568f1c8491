"""A flow: jobs that wait for each other and pass their results on. Run it: `python 02_flow.py`."""

from __future__ import annotations

import asyncio

from flowrun import Flow, Flowrun

app = Flowrun()


@app.handler
async def fetch(city: str) -> list[float]:
    return {"Paris": [11.5, 14.0, 9.5], "Oslo": [2.0, -1.5, 0.5]}[city]


@app.handler
async def mean(temperatures: list[float]) -> float:
    return sum(temperatures) / len(temperatures)


@app.handler
def plot(temperatures: list[float]) -> str:  # a plain def runs in a thread
    return " ".join("#" * max(1, round(value)) for value in temperatures)


@app.handler
async def report(city: str, average: float, picture: str | None = None) -> str:
    return f"{city}: {average:.1f} degrees  {picture}"


@app.handler
async def apologise(city: str) -> str:
    return f"There is no report for {city} today."


def weather(city: str) -> Flow:
    flow = app.flow(f"weather-{city}")
    numbers = flow.add(fetch.job(city).options(attempts=1))
    average = flow.add(mean.job(numbers.result))  # a result as an argument: passed on, and waited for
    picture = flow.add(plot.job(numbers.result))  # runs beside `mean`
    flow.add(report.job(city, average.result, picture.result))  # waits for both
    flow.add(apologise.job(city), after=numbers.failed)
    return flow


async def main() -> None:
    print(weather("Paris"))
    async with app.worker():
        runs = [await weather(city).dispatch() for city in ("Paris", "Atlantis")]
        for run in runs:
            status = await run.wait(timeout=30)
            print(status.name, status.state, {name: job.state for name, job in status.nodes.items()})
        print(await runs[0]["report"].result())
        print(await runs[1]["apologise"].result())


if __name__ == "__main__":
    asyncio.run(main())
