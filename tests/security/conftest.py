from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from flowrun.store.roles import Roles, script
from tests.cli.conftest import shell

__all__ = ["shell"]


class People:
    """Four who log in, each with a role of its own; and a second who dispatches."""

    def __init__(self, dsn: str, roles: Roles, other: str) -> None:
        self._dsn, self.roles, self._other = dsn, roles, other

    def dsn(self, role: str) -> str:
        return self._dsn.replace("//flowrun@", f"//{self.login(role)}@")

    def login(self, role: str) -> str:
        return self._other if role == "other" else f"login_{getattr(self.roles, role)}"

    async def connect(self, role: str) -> asyncpg.Connection:
        return await asyncpg.connect(self.dsn(role))


@pytest.fixture
async def people(dsn: str, connection: asyncpg.Connection) -> AsyncIterator[People]:
    suffix = uuid4().hex[:8]
    roles = Roles(**{name: f"{name}_{suffix}" for name in ("owner", "worker", "dispatcher", "reader")})
    other = f"login_other_{suffix}"
    for _ in range(2):
        await connection.execute(script("flowrun", roles))
    for name in roles.names:
        await connection.execute(f"create role login_{name} login in role {name}")
    await connection.execute(f"create role {other} login in role {roles.dispatcher}")
    await connection.execute(f"grant create on database {connection._params.database} to {roles.owner}")
    yield People(dsn, roles, other)
    others = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename like $1"
    await connection.execute(others, f"login_%_{suffix}")
    everybody = [*(f"login_{name}" for name in roles.names), other, *roles.names]
    for name in everybody:
        await connection.execute(f"reassign owned by {name} to flowrun; drop owned by {name}")
    for name in everybody:
        await connection.execute(f"drop role {name}")
