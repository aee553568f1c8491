"""Every scenario runs to its end at a tiny size, through the same code as at full size. No figures are judged."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.contest import Contest, Figure, Goal, Measurement, measure
from benchmarks.run import main
from benchmarks.scenarios import SCENARIOS
from benchmarks.work import chains, fan, layered

TINY = 0.001
ONLY = {
    "throughput": "concurrency 200",
    "latency": "half load|one after the other|beside insert",
    "chain": "^1 x",
    "fanout": "1 -> 100 -> 1, analyzed|while full|layered",
    "dag": "idle",
    "dispatch": "at once|many|200 nodes",
    "queues": "100 queues",
    "limits": "rate|limit 5|fair_key",
}
"""Where measurements differ by nothing but a number, one of them is run."""


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.timeout(180)
def test_a_scenario_prints_each_measurement(
    scenario: str, flowrun_postgres_server: tuple[str, str], renewed_database, tmp_path, capsys
) -> None:
    file = tmp_path / "figures.jsonl"
    main(
        f"{scenario} --part alone --peers none --runs 1 --scale {TINY}".split()
        + ["--dsn", flowrun_postgres_server[0], "--json", str(file), "--only", ONLY.get(scenario, "")]
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.search(rf"^{scenario} .*flowrun -?[\d,.]+ ", line), line
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(records) == len(lines)
    assert all(ratio["median"] > 0 for record in records for ratio in record["ratios"].values())


def test_an_unknown_scenario_is_a_usage_error() -> None:
    with pytest.raises(SystemExit):
        main(["nothing"])


def test_ratios_come_from_rounds_and_goals_from_their_median() -> None:
    found = Measurement("s", "n", "ms", "floor", {"floor": Goal(2.0), "peer": Goal(0.5)}, load=[0.0])
    found.sides = {"flowrun": [2.0, 9.0, 3.0], "floor": [1.0, 3.0, 2.0], "peer": [4.0, 9.0, 5.0]}
    assert found.ratios("floor") == [2.0, 3.0, 1.5]
    assert found.record()["ratios"]["floor"] == {"median": 2.0, "min": 1.5, "max": 3.0}
    first, second = found.lines()
    assert first.endswith("goal <= 2 met")
    assert second.endswith("goal <= 0.5 MISSED")
    assert not Goal(2.0, at_least=True).met(1.9, 100.0)
    assert Goal(5.0, of_flowrun=True).met(9.0, 4.0)


def test_a_peer_that_fails_is_left_out_and_said_so(capsys) -> None:
    async def good() -> dict[str, float]:
        return {"ms": 1.0}

    async def bad() -> dict[str, float]:
        raise RuntimeError("it is not well")

    contest = Contest("c", good, good, [Figure("ms", "ms")], peers={"ill": bad, "well": good})
    (found,) = measure("s", [contest], runs=2)
    assert found.sides == {"flowrun": [1.0, 1.0], "floor": [1.0, 1.0], "well": [1.0, 1.0]}
    assert "ill is left out: RuntimeError: it is not well" in capsys.readouterr().out


def test_shapes_of_work() -> None:
    assert chains(2, 3).edges == [(0, 1), (1, 2), (3, 4), (4, 5)]
    assert fan(2).edges == [(0, 1), (0, 2), (1, 3), (2, 3)]
    dag = layered(3, 5)
    assert dag.jobs == 15
    assert len(dag.edges) == len(set(dag.edges)) == 30
    assert all(child // 5 - parent // 5 == 1 for parent, child in dag.edges)
