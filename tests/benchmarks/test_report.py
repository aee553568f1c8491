"""The document's tables and pictures are made from what runs write."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import report
from benchmarks.chart import Bar, bars
from benchmarks.scenarios import BESIDE, SCENARIOS

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"


def line(scenario: str, name: str, unit: str, sides: dict[str, list[float]], **more) -> str:
    record = {
        "scenario": scenario,
        "name": name,
        "unit": unit,
        "against": "floor",
        "sides": sides,
        "load": [0.5],
        "ratios": {side: {"median": 0.8, "min": 0.7, "max": 0.9} for side in sides if side != "flowrun"},
        "goals": {"floor": ">= 0.7"},
        "met": {"floor": True},
        "when": "2026-11-25",
        "scale": 1.0,
        "machine": {"cores": 2, "server_version": "18.6"},
        "peers": {"bullmq": "bullmq 6.7.0"},
    }
    return json.dumps(record | more)


LINES = [
    line(
        "throughput", "20,000 no-op jobs, concurrency 100", "jobs/s", {"flowrun": [8e4, 7e4, 9e4], "floor": [1e5] * 3}
    ),
    line("throughput", "20,000 no-op jobs, 1 process", "jobs/s", {"flowrun": [8e4], "floor": [1e5], "bullmq": [2e4]}),
    line("latency", "pick-up beside others, 300 jobs 20 ms apart, p50", "ms", {"flowrun": [2.0], "bullmq": [1.0]}),
]
TEXT = """# Performance

<!-- figures: throughput -->
old
<!-- end -->
<!-- figures: beside throughput -->
<!-- end -->
<!-- figures: soak -->
kept, since nothing new is known
<!-- end -->
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "performance.md").write_text(TEXT)
    (tmp_path / "figures.jsonl").write_text("\n".join(LINES))
    return tmp_path


def test_blocks_are_made_anew_and_the_rest_is_kept(folder: Path) -> None:
    report.main([str(folder / "figures.jsonl"), "--docs", str(folder)])
    text = (folder / "performance.md").read_text()
    assert "old" not in text
    assert "| 80,000 jobs/s (70,000 to 90,000) | floor: 100,000 jobs/s" in text
    assert "| bullmq 6.7.0 | 20,000 jobs/s |" in text
    assert "kept, since nothing new is known" in text
    report.main([str(folder / "figures.jsonl"), "--docs", str(folder)])
    assert (folder / "performance.md").read_text() == text


def test_pictures_are_svg_for_light_and_dark(folder: Path) -> None:
    report.main([str(folder / "figures.jsonl"), "--docs", str(folder)])
    pictures = {file.stem: file.read_text() for file in (folder / "figures").glob("*.svg")}
    assert set(pictures) == {"throughput", "pick-up", "floor"}
    for text in pictures.values():
        ElementTree.fromstring(text)
        assert "prefers-color-scheme: dark" in text
    assert "bullmq (Redis)" in pictures["throughput"]
    assert pictures["throughput"].index(">floor<") < pictures["throughput"].index(">flowrun<")


def test_an_outlier_does_not_flatten_the_others() -> None:
    rows = [
        Bar(name, value, value, value, f"{value:g} ms") for name, value in zip("abcde", (250, 4, 3, 2, 1), strict=True)
    ]
    widths = [float(bar.get("width")) for bar in ElementTree.fromstring(bars("t", "n", rows)).findall(".//{*}rect")]
    assert widths[1] > widths[0] / 3


def test_the_document_has_a_block_for_every_scenario() -> None:
    text = DOCUMENT.read_text()
    blocks = {match[2] for match in report._BLOCK.finditer(text)}
    assert blocks >= {"machine", "goals", *SCENARIOS, *(f"beside {name}" for name in BESIDE)}
    for name in [*report.PICTURES, "floor"]:
        assert f"figures/{name}.svg" in text
        assert (DOCUMENT.parent / "figures" / f"{name}.svg").exists()
