"""What is fuzzed: for each target what is tried, and what must hold. Pure: no database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.fuzz import cli, codec, cron, dag, dsn, sealing

Target = tuple[st.SearchStrategy[Any], Callable[[Any], None]]

TARGETS: dict[str, Target] = {
    "codec": (codec.VALUES, codec.check),
    "sealing": (sealing.VALUES, sealing.check),
    "dsn": (dsn.VALUES, dsn.check),
    "cli": (cli.VALUES, cli.check),
    "dag": (dag.VALUES, dag.check),
    "cron": (cron.VALUES, cron.check),
}
