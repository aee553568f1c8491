from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.chaos.proxy import Proxy


@dataclass
class Through:
    """A way to the test's database that leads through a proxy."""

    proxy: Proxy
    dsn: str


@pytest.fixture
async def through(dsn: str) -> AsyncIterator[Through]:
    parts = urlsplit(dsn)
    options = {name: values[0] for name, values in parse_qs(parts.query).items()}
    port = int(options.get("port", parts.port or 5432))
    target = f"{options['host']}/.s.PGSQL.{port}" if "host" in options else port
    async with Proxy(target) as proxy:
        user = parts.netloc.rpartition("@")[0] or options.get("user", "")
        yield Through(proxy, f"postgresql://{user}@127.0.0.1:{proxy.port}{parts.path}")
