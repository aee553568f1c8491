"""What notifications are called and hold: nothing that PostgreSQL would cut or refuse, whatever users call things."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest

from flowrun import mint
from flowrun.client.notify import IDS_PER_PAYLOAD, Notifier, wakes
from flowrun.core.lanes import place
from flowrun.store.listen import Channels

NAMES = ["default", "x" * 200, "📮" * 200, "'; drop table flowrun.jobs; --", 'a"b', "%_", "a\x9b", "CamelCase"]


async def test_a_channel_is_short_of_one_length_and_heard_as_it_is_called(connection: asyncpg.Connection) -> None:
    """PostgreSQL refuses to notify a channel of 64 bytes, and to listen there cuts it to 63: both would miss each other."""
    channels = [Channels(schema).queue(name) for schema in ("flowrun", "S" * 63) for name in NAMES]
    channels += [Channels("flowrun").control, Channels("flowrun").done]
    assert len(set(channels)) == len(channels)
    assert {len(channel.encode()) for channel in channels} == {len(channels[0])}
    heard: list[str] = []
    for channel in channels:
        await connection.add_listener(channel, lambda _connection, _pid, channel, _payload: heard.append(str(channel)))
        await connection.execute("select pg_notify($1, '')", channel)
    assert heard == channels
    for channel in channels:
        await connection.remove_listener(channel, lambda *_: None)


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_is_a_word_or_ids_and_never_a_name(name: str) -> None:
    channels = Channels("flowrun")
    lane = place(name, name, {"limit": (name, 1)})
    assert {payload for _, payload in wakes(channels, [name, lane], scheduled=True)} == {"", "lane", "timer"}
    notifier = Notifier(cast(Any, SimpleNamespace()), channels)
    ids = [mint.job_id() for _ in range(10 * IDS_PER_PAYLOAD + 1)]
    notifier.awaited(ids)
    notifier.interrupt(ids)
    notifier.done(ids)
    notifier.limit_met(ids[0])
    notifier.greet(ids[0])
    payloads = [payload for _, payload in notifier._take()]
    assert len(payloads) == 3 * 11 + 2
    assert max(map(len, payloads)) < 8_000
