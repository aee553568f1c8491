"""What runs beside peers, by the drivers of flowrun and the floor; and what is said of peers that are not there."""

from __future__ import annotations

import pytest

from benchmarks.peers import driven
from benchmarks.peers.catalogue import FLOOR, FLOWRUN, PEERS
from benchmarks.peers.stores import Stores
from benchmarks.run import main


@pytest.mark.timeout(180)
async def test_a_backlog_is_drained_by_a_worker_process(
    flowrun_postgres_server: tuple[str, str], renewed_database
) -> None:
    found = await driven.drain(FLOWRUN, Stores(flowrun_postgres_server[0], None), jobs=50, processes=1)
    assert found["rate"] > 0
    assert found["dispatch_rate"] > 0


@pytest.mark.timeout(180)
async def test_chains_are_timed_from_dispatch_to_last_step(
    flowrun_postgres_server: tuple[str, str], renewed_database
) -> None:
    found = await driven.chains(FLOOR, Stores(flowrun_postgres_server[0], None), 2, 3)
    assert found["rate"] == pytest.approx(6 / found["ms"] * 1e3)


async def test_a_driver_that_fails_is_quoted(tmp_path) -> None:
    floor = driven.Driven(FLOOR, tmp_path, {"DSN": "postgresql:///nowhere?host=/nowhere"})
    with pytest.raises(RuntimeError, match=r"(?s)floor setup: .*FileNotFoundError"):
        await floor.call("setup")


def test_a_peer_that_is_not_installed_is_left_out_with_a_line(
    flowrun_postgres_server: tuple[str, str], tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("FLOWRUN_BENCH_PEERS", str(tmp_path))
    main(["idle", "--dsn", flowrun_postgres_server[0], "--only", "nothing"])
    said = capsys.readouterr().out
    for name in PEERS:
        assert f"{name} is not installed: python -m benchmarks.peers install {name}" in said


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_every_peer_has_a_driver_with_all_verbs(peer) -> None:
    from benchmarks.peers.catalogue import DRIVERS

    (file,) = DRIVERS.glob(f"{peer.module}.*")
    text = file.read_text()
    assert not {verb for verb in ("setup", "worker", "dispatch", "latency", "chains", "fan") if verb not in text}
