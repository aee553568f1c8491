"""Why a job is not running, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flowrun import codec
from flowrun.core.states import Condition, Kind, Outcome
from flowrun.errors import NotFound
from flowrun.sealing import rows
from flowrun.store import reads

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client

_ASKED = {
    Condition.SUCCEEDED: "to succeed",
    Condition.FAILED: "to fail",
    Condition.FINISHED: "to end",
    Condition.SUCCEEDED_ITSELF: "to succeed",
    Condition.SUCCEEDED_OR_CANCELLED: "to succeed, or to be cancelled",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job, or a flow, stands where it stands."""

    name: str
    state: str
    reasons: tuple[str, ...]
    """A sentence each."""

    def __str__(self) -> str:
        """For people: the name, the state, the reasons."""
        return "\n".join([f"{self.name} is {self.state}", *(f"  {reason}" for reason in self.reasons)])


async def explain(client: Client, id: UUID) -> Explanation:
    """Why the job, or the flow, with that id stands where it stands."""
    row = await reads.standing(client.database, id)
    if row is None:
        raise NotFound(f"no job or flow {id} is stored")
    row["error"] = client.sealing.shown_text(row["error"], id, "error")
    if row["signal"] is not None:
        row["args"] = rows.shown_args(client.sealing, Kind.GATE, row["args"], id)
    state, reasons = _standing(row)
    if row["need"] is not None and row["flow_id"] is not None:
        edges = await reads.waited_for(client.database, id, row["flow_id"])
        reasons += _edges(row, edges)
    if row["asked"]:
        reasons.append("it was asked to stop")
    return Explanation(row["name"], state, tuple(reasons))


def _standing(row: dict[str, Any]) -> tuple[str, list[str]]:
    if row["outcome"] is not None:
        what = ": ".join(part for part in (row["error_type"], row["error"]) if part)
        return Outcome(row["outcome"]).name.lower(), [what] if what else []
    if row["signal"] is not None:
        return "waiting", [_gate(row)]
    if row["claimed_at"] is not None:
        since = f"{row['claimed_at']:%Y-%m-%d %H:%M:%S %Z}"
        return "running", [f"attempt {row['attempt']} since {since} on {row['worker']}"]
    if row["ready"]:
        nobody = _nobody(row)
        held = _limits(row)
        if nobody or not held:
            held.append(nobody or "a worker that serves its queue takes it when it has a consumer free")
        return "ready", held
    if row["run_at"] is not None:
        after = f", after {row['attempt']} attempt(s)" if row["attempt"] else ""
        reasons = [f"it is due at {row['run_at']:%Y-%m-%d %H:%M:%S %Z}{after}"]
        nobody = _nobody(row)
        return "scheduled", [*reasons, nobody] if nobody else reasons
    return "waiting", []


def _gate(row: dict[str, Any]) -> str:
    asked: dict[str, Any] = row["args"]
    text = f"it waits for the signal {row['signal']!r} since {row['opened_at']:%Y-%m-%d %H:%M:%S %Z}"
    if "answers" in asked:
        text += f", with one of {', '.join(map(repr, asked['answers']))}"
    if "..." in asked:
        text += f", with answers that are {asked['...']}"
    if row["run_at"] is not None:
        text += f"; its time is over at {row['run_at']:%Y-%m-%d %H:%M:%S %Z}"
    return text


def _nobody(row: dict[str, Any]) -> str | None:
    if row["able"]:
        return None
    if not row["serving"]:
        return f"no worker that lives serves the queue {row['queue']!r}"
    if not row["knowing"]:
        return f"no worker that lives has a handler of type {row['type']!r}"
    return f"no worker that lives serves the queue {row['queue']!r} and has a handler of type {row['type']!r}"


def _limits(row: dict[str, Any]) -> list[str]:
    """What holds up a job that is ready."""
    queue, reasons = row["queue"], []
    if row["paused"]:
        reasons.append(f"its queue {queue!r} is paused")
    if row["type_paused"]:
        reasons.append(f"its type {row['type']!r} is paused")
    if row["concurrency"] is not None and row["queue_used"] >= row["concurrency"]:
        reasons.append(f"{row['queue_used']} of {row['concurrency']} jobs of the queue {queue!r} run already")
    if row["rate_jobs"] is not None and row["rate_used"] >= row["rate_jobs"]:
        within = f"in the last {row['rate_seconds']:g} s"
        reasons.append(f"{row['rate_used']} of {row['rate_jobs']} jobs of the queue {queue!r} were started {within}")
    if row["limit_most"] is not None and row["limit_used"] >= row["limit_most"]:
        kind, _, key = row["limit_key"].partition(":")
        what = {"key": "limit", "type": "limit of type"}.get(kind, kind)
        reasons.append(f"{row['limit_used']} of {row['limit_most']} jobs of the {what} {key!r} run already")
    return reasons


def _edges(row: dict[str, Any], edges: list[dict[str, Any]]) -> list[str]:
    reasons = [_edge(edge) for edge in edges if edge["outcome"] is None]
    if row["need"] < row["open"]:
        reasons.insert(0, f"it needs {row['need']} of {row['open']} that are open")
    return reasons


def _edge(edge: dict[str, Any]) -> str:
    wanted = _ASKED[Condition(edge["condition"])]
    if edge["test"] is not None:
        test = codec.look_into(edge["test"])
        if "op" in test:
            path = ".".join(map(str, test["path"])) if isinstance(test.get("path"), list) else ""
            wanted += f" with {path or 'result'} {test['op']} {test.get('value')!r}"
    what = "a join" if edge["kind"] == Kind.JOIN else repr(edge["name"])
    return f"it waits for {what} {wanted}" + (", which runs" if edge["runs"] else "")
