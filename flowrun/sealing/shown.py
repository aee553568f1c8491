"""Rows for people: opened where that is possible, and else said to be closed."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flowrun import codec
from flowrun.sealing.attempts import signal_field
from flowrun.sealing.sealing import Sealing

Row = dict[str, Any]

_FIELDS = {"attempt_failed": "message", "progress": "progress"}
"""What the message of an event is, by kind; of the others the error of an outcome, if it is sealed at all."""


def status(sealing: Sealing, row: Row) -> Row:
    """A job's status."""
    row["error"] = sealing.shown_text(row["error"], row["id"], "error")
    row["progress_message"] = sealing.shown_text(row["progress_message"], row["id"], "progress")
    return row


def failure(sealing: Sealing, row: Row, id: UUID) -> Row:
    """What is kept of a failed attempt; ``detail`` is a dict then."""
    row["message"] = sealing.shown_text(row["message"], id, "message")
    row["traceback"] = sealing.shown_text(row["traceback"], id, "traceback")
    row["detail"] = detail(sealing, row["detail"], id)
    return row


def detail(sealing: Sealing, stored: str | None, id: UUID) -> Row:
    """What else an exception told."""
    told = sealing.shown_json(stored or "{}", id, "detail")
    return told if isinstance(told, dict) else {"...": told}


def audited(sealing: Sealing, row: Row) -> Row:
    """What somebody did; ``detail`` is a dict then. It holds the value of a signal."""
    told = row["detail"] = codec.look_into(row["detail"])
    root = row.pop("flow_id")
    if row["verb"] == "signal" and "value" in told:
        value = codec.dump(told["value"])
        told["value"] = sealing.shown_json(value, root, signal_field(str(told.get("signal"))))
    return row


def event(sealing: Sealing, row: Row) -> Row:
    """Something that happened in a flow."""
    row["message"] = sealing.shown_text(row["message"], row["job_id"], _FIELDS.get(row["kind"], "error"))
    return row
