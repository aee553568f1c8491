"""`python -m benchmarks.report FILE...`: the tables and pictures of docs/performance.md, from what runs have written.

In the document, what stands between ``<!-- figures: NAME -->`` and ``<!-- end -->`` is made here; the rest is not touched.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.chart import Bar, Dot, bars, dots
from benchmarks.contest import BUSY, OURS
from benchmarks.peers.catalogue import PEERS

DOCS = Path(__file__).parents[1] / "docs"
Record = Mapping[str, Any]
Records = Mapping[tuple[str, str], Record]

PICTURES = {
    "throughput": ("throughput", r"no-op jobs, 1 process$", "jobs/s, finished with all that is kept; longer is better"),
    "pick-up": (
        "latency",
        r"beside others.*p50$",
        "median time from dispatch to handler, another process; shorter is better",
    ),
    "chain": ("chain", r"^1 x .* beside others$", "steps a second of one chain alone; longer is better"),
    "chains": ("chain", r"^[^1].* x 20 beside others$", "steps a second, 50 chains at once; longer is better"),
    "fan": ("fanout", r"beside others$", "time from dispatch to the join; shorter is better"),
}
"""Of what is measured beside peers: scenario, name, and what one sees."""

_SHORTER = {
    "never analyzed": "no statistics",
    "analyzed while empty": "stale statistics",
    "analyzed while full": "true statistics",
    " no-op jobs": "",
    ", 300 jobs 20 ms apart, p50": "",
    "pick-up ": "",
    "concurrency": "consumers",
}
_BLOCK = re.compile(r"(<!-- figures: ([a-z -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the document anew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument(
        "file", nargs="+", type=Path, help="JSON lines of benchmarks.run; of two equal measurements the later counts"
    )
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder with performance.md (default: docs)")
    options = parser.parse_args(arguments)
    records = read(line for file in options.file for line in file.read_text("utf-8").splitlines())
    document = options.docs / "performance.md"
    document.write_text(written(document.read_text("utf-8"), records), "utf-8")
    figures = options.docs / "figures"
    figures.mkdir(exist_ok=True)
    for name, picture in pictures(records).items():
        (figures / f"{name}.svg").write_text(picture, "utf-8")


def read(lines: Iterable[str]) -> Records:
    """Measurements by scenario and name."""
    found = (json.loads(line) for line in lines if line.strip())
    return {(record["scenario"], record["name"] + "|" + record["against"]): record for record in found}


def written(text: str, records: Records) -> str:
    """The document with its blocks made anew; a block without any figures stays as it is."""

    def block(match: re.Match[str]) -> str:
        body = BLOCKS.get(match[2], _scenario)(records, match[2])
        return f"{match[1]}\n{body}\n\n{match[3]}" if body else match[0]

    return _BLOCK.sub(block, text)


def pictures(records: Records) -> dict[str, str]:
    """SVGs by name; those only for which there are figures."""
    found = {}
    for name, (scenario, pattern, note) in PICTURES.items():
        beside = [record for record in _of(records, scenario) if re.search(pattern, record["name"])]
        if beside:
            record = min(beside, key=lambda one: -len(one["sides"]))
            found[name] = bars(_title(record), note, _bars(record))
    if rows := _dots(records):
        note = (
            "throughput, or time the other way round: 1 is the floor, more is better. Line: all runs; orange: the goal"
        )
        found["floor"] = dots("flowrun beside the floor", note, rows)
    return found


def _of(records: Records, scenario: str) -> list[Record]:
    return [record for (name, _), record in records.items() if name == scenario]


def _bars(record: Record) -> list[Bar]:
    better = -1 if record["unit"].endswith("/s") else 1
    rows = []
    for side, values in record["sides"].items():
        redis = side in PEERS and PEERS[side].store == "redis"
        kind = {OURS: "ours", "floor": "floor"}.get(side, "other" if redis else "bar")
        label = f"{side} (Redis)" if redis else side
        middle = median(values)
        rows.append(Bar(label, middle, min(values), max(values), _number(middle, record["unit"]), kind))
    return sorted(rows, key=lambda row: better * row.middle)


def _dots(records: Records) -> list[Dot]:
    rows = []
    for record in records.values():
        ratio, up = record["ratios"].get(record["against"]), record["unit"].endswith("/s")
        if ratio is None or not _is_beside_the_floor(record):
            continue
        low, middle, high = ratio["min"], ratio["median"], ratio["max"]
        if not up:
            low, middle, high = 1 / high, 1 / middle, 1 / low
        bound = re.match(r"[<>]= ([\d.]+)$", record["goals"].get(record["against"], ""))
        goal = None if bound is None else float(bound[1]) if up else 1 / float(bound[1])
        rows.append(Dot(_short(record), middle, low, high, goal))
    return rows


def _is_beside_the_floor(record: Record) -> bool:
    """Whether it is a rate or a time, with the floor for the same work, in this process."""
    if record["against"] not in {"floor", "insert", "copy"} or _is_beside(record):
        return False
    if re.search(r"with dispatch|p99|included", record["name"]):
        return False
    return bool(record["unit"].endswith("/s") or record["unit"] == "ms")


def _short(record: Record) -> str:
    name = record["name"]
    for long, short in _SHORTER.items():
        name = name.replace(long, short)
    return f"{record['scenario']}: {name}"


def _title(record: Record) -> str:
    name = record["name"].replace(" beside others", "")
    return name[0].upper() + name[1:]


# -- tables ----------------------------------------------------------------------------------------------------------


def _machine(records: Records, _: str) -> str:
    facts = [record for record in records.values() if "machine" in record]
    if not facts:
        return ""
    machine = facts[-1]["machine"]
    named = {"server_version": "PostgreSQL"}
    text = ", ".join(f"{named.get(name, name)} {value}" for name, value in machine.items())
    days = sorted({record["when"] for record in facts})
    load = median(value for record in facts for value in record["load"])
    scales = sorted({record["scale"] for record in facts})
    lines = [
        f"Measured {' to '.join(dict.fromkeys((days[0], days[-1])))}: {text}.",
        f"Load average of the machine meanwhile, our own share included: {load:.1f}.",
    ]
    if load > BUSY * machine["cores"]:
        lines.append(
            "**Provisional**: others were at work on the machine, so times are long, and ratios are not those of a quiet one."
        )
    if scales != [1.0]:
        lines.append(f"**Not at full size** (scale {', '.join(f'{scale:g}' for scale in scales)}).")
    return " ".join(lines)


def _goals(records: Records, _: str) -> str:
    rows = []
    for record in records.values():
        if not record["goals"]:
            continue
        ours = _number(median(record["sides"][OURS]), record["unit"])
        missed = [_reached(record, side) for side, met in record["met"].items() if not met]
        verdict = f"**missed**: {', '.join(missed)}" if missed else "met"
        if len(record["goals"]) == 1 and not missed and OURS not in record["goals"]:
            verdict = f"met: {_reached(record, next(iter(record['goals'])))}"
        rows.append(f"| {record['scenario']}: {record['name']} | {ours} | {_wanted(record['goals'])} | {verdict} |")
    return "\n".join(["| what | flowrun | goal | |", "|---|---|---|---|", *rows]) if rows else ""


def _wanted(goals: Mapping[str, str]) -> str:
    """Goals that are the same told once: ``>= 6 x oban, dbos; >= 3 x bullmq``."""
    sides: dict[str, list[str]] = {}
    for side, goal in goals.items():
        sides.setdefault(goal.removesuffix(" itself"), []).append(side)
    return "; ".join(goal if who == [OURS] else f"{goal} x {', '.join(who)}" for goal, who in sides.items())


def _reached(record: Record, side: str) -> str:
    return "itself" if side == OURS else f"{record['ratios'][side]['median']:.2f} x {side}"


def _scenario(records: Records, name: str) -> str:
    """What was measured of a scenario in one process: a line each."""
    rows = []
    for record in _of(records, name):
        if _is_beside(record):
            continue
        unit, against = record["unit"], record["against"]
        cells = [record["name"], _spread(record["sides"][OURS], unit)]
        if against in record["sides"]:
            cells += [f"{against}: {_spread(record['sides'][against], unit)}", _spread(record["ratios"], "", against)]
        else:
            cells += ["", ""]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(["| | flowrun | beside | ratio |", "|---|---|---|---|", *rows]) if rows else ""


def _beside(records: Records, name: str) -> str:
    """What was measured beside peers: a column each measurement, a line each side."""
    columns = [record for record in _of(records, name.removeprefix("beside ")) if _is_beside(record)]
    sides = list(dict.fromkeys(side for record in columns for side in record["sides"]))
    if not columns:
        return ""
    versions = {name: version for record in columns for name, version in record["peers"].items()}
    lines = ["| | " + " | ".join(_title(record) for record in columns) + " |", "|---|" + "---|" * len(columns)]
    for side in sides:
        cells = [
            _spread(record["sides"][side], record["unit"]) if side in record["sides"] else "" for record in columns
        ]
        lines.append(f"| {versions.get(side) or side} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _is_beside(record: Record) -> bool:
    return "beside others" in record["name"] or bool(re.search(r"\d process", record["name"]))


BLOCKS: Mapping[str, Callable[[Records, str], str]] = {
    "machine": _machine,
    "goals": _goals,
    **{f"beside {name}": _beside for name in ("throughput", "latency", "chain", "fanout")},
}


def _spread(values: Any, unit: str, side: str | None = None) -> str:
    if side is not None:
        ratio = values[side]
        return f"**{ratio['median']:.2f}** ({ratio['min']:.2f} to {ratio['max']:.2f})"
    if len(values) == 1:
        return _number(values[0], unit)
    return f"{_number(median(values), unit)} ({_number(min(values), '')} to {_number(max(values), '')})"


def _number(value: float, unit: str) -> str:
    digits = (
        f"{value:,.0f}"
        if abs(value) >= 100
        else f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2g}"
        if abs(value) < 0.1
        else f"{value:.2f}"
    )
    return f"{digits} {unit}".rstrip()


if __name__ == "__main__":
    main()
