"""Every scenario runs to its end at a tiny size, through the same code as at full size. No figures are judged."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.contest import Goal, Measurement
from benchmarks.run import main
from benchmarks.scenarios import SCENARIOS
from benchmarks.work import chains, fan, layered


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.timeout(180)
def test_a_scenario_prints_a_ratio_for_each_measurement(
    scenario: str, flowrun_postgres_server: tuple[str, str], tmp_path, capsys
) -> None:
    file = tmp_path / "figures.jsonl"
    main([scenario, "--dsn", flowrun_postgres_server[0], "--runs", "1", "--scale", "0.004", "--json", str(file)])
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.search(rf"^{scenario} .*flowrun [\d,.]+ .* ratio [\d,.]+ \(", line), line
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(records) == len(lines)
    assert all(record["ratio"]["median"] > 0 for record in records)


def test_an_unknown_scenario_is_a_usage_error() -> None:
    with pytest.raises(SystemExit):
        main(["nothing"])


def test_ratios_come_from_pairs_and_goals_from_their_median() -> None:
    found = Measurement("s", "n", "ms", "floor", Goal(2.0), flowrun=[2.0, 9.0, 3.0], baseline=[1.0, 3.0, 2.0])
    assert found.ratios == [2.0, 3.0, 1.5]
    assert found.record()["ratio"] == {"median": 2.0, "min": 1.5, "max": 3.0}
    assert found.line().endswith("goal <= 2 met")
    assert not Goal(2.0, at_least=True).met(1.9, 100.0)
    assert Goal(5.0, of_flowrun=True).met(9.0, 4.0)


def test_shapes_of_work() -> None:
    assert chains(2, 3).edges == [(0, 1), (1, 2), (3, 4), (4, 5)]
    assert fan(2).edges == [(0, 1), (0, 2), (1, 3), (2, 3)]
    dag = layered(3, 5)
    assert dag.jobs == 15
    assert len(dag.edges) == len(set(dag.edges)) == 30
    assert all(child // 5 - parent // 5 == 1 for parent, child in dag.edges)
