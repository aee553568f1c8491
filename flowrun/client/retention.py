"""How long things are kept, as a program says it, and ``app.prune``."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from flowrun.core.options import Retention, by_outcome, check_name, check_retention
from flowrun.core.states import Outcome
from flowrun.errors import ConfigurationError
from flowrun.store import prune as store
from flowrun.store.prune import Rule

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client
    from flowrun.store.pool import Connection


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was pruned, or would be."""

    jobs: int
    """Jobs without a flow."""
    flows: int
    """Outermost flows, each with all its jobs."""


@dataclass(slots=True)
class Retentions:
    """What a program says of how long things are kept: written when a worker of it starts."""

    said: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    """By scope and name: seconds by outcome."""

    def add(self, retention: Retention, *, type: str | None, queue: str | None, flow: str | None) -> None:
        """Keep what ended so for so long. Raises ConfigurationError."""
        named = {"type": type, "queue": queue, "flow": flow}
        given = [(scope, name) for scope, name in named.items() if name is not None]
        if len(given) > 1:
            raise ConfigurationError(
                f"retention: {given[0][0]}= and {given[1][0]}= exclude each other; say it once for each"
            )
        scope, name = given[0] if given else ("all", "")
        if given:
            check_name(f"a {scope} of retention", name)
        checked = check_retention(retention, "retention" if not given else f"retention of {scope} {name!r}")
        self.said.setdefault((scope, name), {}).update(by_outcome(checked))

    async def declare(self, client: Client) -> None:
        """Write it. A type of this program of which it says nothing is kept as long as everybody else's."""
        said = dict(self.said)
        for definition in client.registry:
            if "retention" in definition.options:
                own = by_outcome(definition.options["retention"])
                said["type", definition.type] = own | said.get(("type", definition.type), {})
        rules = [
            Rule(scope, name, Outcome[outcome.upper()], seconds)
            for (scope, name), outcomes in said.items()
            for outcome, seconds in outcomes.items()
        ]
        types = [definition.type for definition in client.registry]
        database = client.database

        async def verb(connection: Connection) -> None:
            await store.declare(connection, database.sql, rules, types)

        await database.repeat(verb)


def check_age(seconds: float | None) -> float | None:
    """An age in seconds as given. Raises ConfigurationError."""
    if seconds is None:
        return None
    known = isinstance(seconds, int | float) and not isinstance(seconds, bool) and isfinite(seconds)
    if not known or seconds < 0:
        raise ConfigurationError(f"older_than= must be a number of seconds, 0 or more; got {seconds!r}")
    return float(seconds)
