"""What a job can ask for: the options, what each allows, and which of two wins."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, cast

from flowrun.core.backoff import Backoff, from_dict, steps
from flowrun.core.naming import qualified
from flowrun.errors import ConfigurationError

if TYPE_CHECKING:
    from flowrun.core.job import JobSpec

SYSTEM_QUEUE: Final = "flowrun"
"""Where flowrun's own jobs (ends of flows, joins) are ready; every worker serves it."""

MAX_NAME: Final = 200
MAX_KEY: Final = 500
MAX_REASON: Final = 2_000
MAX_TAGS: Final = 100
_STEERING: Final = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""What is no character to be seen: control characters, line ends, what turns text round, lone surrogates."""
_KEY = re.compile(rf"[^{_STEERING}]{{1,500}}")
_KEY_BYTES: Final = 1_800
"""With the longest name beside it, what a PostgreSQL index holds."""
_CONFLICTS: Final = ("existing", "replace", "raise")
_NAME = re.compile(rf"[^{_STEERING}]{{1,200}}")
_STORABLE = re.compile(r"[^\x00\ud800-\udfff]*")
LONGEST: Final = 100 * 366 * 86_400.0
_LATER: Final = {"connection": "several databases"}
_OUTCOMES: Final = ("succeeded", "failed", "cancelled", "skipped")

Retention = float | Mapping[Literal["succeeded", "failed", "cancelled", "skipped"], float]
"""Seconds that something is kept after its end; by outcome where that matters. ``math.inf``: for ever."""

ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...] | Sequence[type[BaseException]]


class JobOptions(TypedDict, total=False):
    """Options of a job. On a handler they are defaults; on a job they win. All times are seconds."""

    queue: str
    """The queue it waits in (default ``"default"``)."""
    priority: int
    """0 to 9, lower runs first (default 5)."""
    attempts: int
    """How often it may run before it has failed (default 3)."""
    backoff: Backoff | Sequence[float]
    """Seconds between attempts: :mod:`flowrun.backoff`, a list of them (``[1, 5, 30]``, the last again and again), or
    any function from the attempt's number."""
    timeout: float
    """Seconds one attempt may take; over it, the attempt is cancelled and has failed."""
    delay: float
    """Seconds to wait before it may run, counted from dispatch, in a flow from its release."""
    run_at: datetime
    """Not before this moment (with a time zone)."""
    retry_on: ExceptionTypes
    """Retry only these exceptions; others fail the job at once."""
    give_up_on: ExceptionTypes
    """Never retry these exceptions."""
    optional: bool
    """Its failure does not stop what waits for it, nor fail its flow."""
    tags: Sequence[str]
    """Words to find it by."""
    start_by: datetime | float
    """It fails if its first attempt has not begun by this moment, or so many seconds after dispatch."""
    key: str
    """Makes the dispatch idempotent: while it is held, another dispatch with it gives back the first one's run."""
    on_conflict: Literal["existing", "replace", "raise"]
    """What a dispatch does whose key is held: give back the first one's run (the default), take the first one's place
    while that has not started, or raise DuplicateKey."""
    key_ttl: float
    """Seconds the key is held, counted from dispatch (default: as long as the job or flow is stored)."""
    debounce: tuple[str, float]
    """``("index-42", 5.0)``: it runs when nothing with this key was dispatched for 5 seconds; each dispatch takes the
    place of the one before, while that has not started."""
    throttle: tuple[str, float]
    """``("user-7", 60.0)``: a dispatch within 60 seconds of another with this key gives back that one's run."""
    limit: tuple[str, int] | int
    """``("tenant-7", 5)``: at most 5 with this key run at once, on all workers together, whatever their type or queue.
    A number alone: at most so many of this type."""
    sequence: str
    """Jobs with the same sequence run one at a time, in the order of their dispatch; one that is to be retried holds up
    the rest until it has ended."""
    fair_key: str
    """The queue's workers go round between the keys (tenants): many jobs with one key do not hold up the others."""
    on_failure: JobSpec[Any]
    """The job that is dispatched when this one has failed for good, in the same commit. A parameter of its handler that
    is annotated :class:`flowrun.JobError` receives what is known of the failure."""
    retention: Retention
    """Seconds it is kept after its end, ``math.inf`` for ever; or by outcome: ``{"succeeded": 60.0}``. A flow is kept
    as a whole: it has one of its own."""
    on_lost: Literal["retry", "fail"]
    """What follows when the worker that runs it dies, or stops and does not wait for it. ``"retry"`` (default): it runs
    again, and no attempt is charged. ``"fail"``: once its handler was called it is not called again because of a loss;
    the job has failed, with ``flowrun.WorkerLost`` as its error."""
    connection: str


DEBOUNCE: Final = "debounce"
"""As ``on_conflict``: "replace", and if the first one has started, take over its key and run besides."""

KEYING: Final = ("key", "on_conflict", "key_ttl")
"""The options that say which dispatch it is, not how the job runs."""

DEFAULTS: Final[JobOptions] = {"queue": "default", "priority": 5, "attempts": 3, "optional": False}


def check(options: Mapping[str, Any], where: str) -> JobOptions:
    """``options`` as they may be stored, or ConfigurationError naming the option and what it allows.

    An option given as ``None`` counts as not given.
    """
    checked: dict[str, Any] = {}
    for name, value in options.items():
        if name in _LATER:
            raise ConfigurationError(f"{where}: option {name}= ({_LATER[name]}) is not built yet in this version")
        if name not in _CHECKS:
            allowed = ", ".join(sorted(_CHECKS))
            raise ConfigurationError(f"{where}: unknown option {name!r}; the options are {allowed}")
        if value is not None:
            try:
                checked[name] = _CHECKS[name](value)
            except _Refused as refused:
                raise ConfigurationError(f"{where}: {name}= must be {refused}; got {_shown(value)}") from None
    if "debounce" in checked or "throttle" in checked:
        _as_key(checked, where)
    return cast(JobOptions, checked)


def _as_key(checked: dict[str, Any], where: str) -> None:
    """Debounce and throttle are keys: what they come to takes their place."""
    name = "debounce" if "debounce" in checked else "throttle"
    others = ({"throttle", *KEYING} | ({"delay", "run_at"} if name == "debounce" else set())) - {name}
    if found := sorted(others & checked.keys()):
        raise ConfigurationError(f"{where}: {name}= and {found[0]}= exclude each other")
    key, seconds = checked.pop(name)
    if name == "debounce":
        checked |= {"key": key, "on_conflict": DEBOUNCE, "key_ttl": None, "delay": seconds}
    else:
        checked |= {"key": key, "on_conflict": "existing", "key_ttl": seconds}


def merge(*layers: Mapping[str, Any]) -> JobOptions:
    """The options of several layers, the most important first."""
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged.update(layer)
    return cast(JobOptions, merged)


OWN: Final = ("queue", "key", "on_conflict", "key_ttl", "debounce", "throttle", "retention")
"""Options that a queue has none of: they are a job's own, or said elsewhere (``app.retention``)."""


def check_of_queue(options: Mapping[str, Any], where: str) -> JobOptions:
    """Options as the defaults of a queue. Raises ConfigurationError."""
    for name in OWN:
        if options.get(name) is not None:
            hint = ": app.retention(..., queue=...) says it" if name == "retention" else ""
            raise ConfigurationError(f"{where}: {name}= is no option of a queue{hint}")
    return check(options, where)


def check_together(options: JobOptions, where: str) -> None:
    """Raise ConfigurationError for options that exclude each other."""
    if "limit" in options and "sequence" in options:
        raise ConfigurationError(f"{where}: limit= and sequence= exclude each other: a sequence is a limit of 1")


def check_name(what: str, name: object) -> str:
    """``name`` if it may name a ``what``: 1 to 200 characters, none of them a control character."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name != name.strip():
        raise ConfigurationError(
            f"{what} must be a text of 1 to {MAX_NAME} characters without control characters or outer spaces; "
            f"got {_shown(name)}"
        )
    return name


def check_text(what: str, text: object, most: int) -> None:
    """Raise ConfigurationError unless ``text`` is None, or at most ``most`` characters that PostgreSQL can hold."""
    if text is None:
        return
    if not isinstance(text, str) or len(text) > most or not _STORABLE.fullmatch(text):
        size = f" of {len(text):,} characters" if isinstance(text, str) else ""
        raise ConfigurationError(
            f"{what} must be a text of at most {most:,} characters without NUL and lone surrogates; "
            f"got {_shown(text)}{size}"
        )


def to_stored(options: JobOptions, where: str) -> dict[str, Any]:
    """The part of ``options`` that only a worker reads, as JSON can carry it."""
    stored: dict[str, Any] = {}
    if "attempts" in options:
        stored["attempts"] = options["attempts"]
    if "timeout" in options:
        stored["timeout"] = options["timeout"]
    if tags := options.get("tags"):
        stored["tags"] = list(tags)
    if "on_lost" in options:
        stored["on_lost"] = options["on_lost"]
    for name in ("retry_on", "give_up_on"):
        if name in options:
            stored[name] = [qualified(kind) for kind in cast(Mapping[str, Any], options)[name]]
    if "retention" in options:
        stored["retention"] = stored_retention(options["retention"])
    if "on_failure" in options:
        stored["on_failure"] = options["on_failure"].as_callback(where)
    if "backoff" in options:
        to_dict = getattr(options["backoff"], "to_dict", None)
        if to_dict is None:
            raise ConfigurationError(
                f"{where}: a function as backoff= cannot be stored with a job; "
                "set it on the handler, or use flowrun.backoff"
            )
        stored["backoff"] = to_dict()
    return stored


def stored_retention(retention: Retention) -> Any:
    """A retention as JSON can carry it and PostgreSQL reads it: infinity is a word there."""
    if isinstance(retention, Mapping):
        return {name: stored_retention(seconds) for name, seconds in retention.items()}
    return retention if isfinite(retention) else "Infinity"


def by_outcome(retention: Retention) -> dict[str, float]:
    """A retention, checked already, outcome by outcome."""
    if isinstance(retention, Mapping):
        return {str(outcome): seconds for outcome, seconds in retention.items()}
    return dict.fromkeys(_OUTCOMES, retention)


def check_retention(retention: object, where: str) -> Retention:
    """``retention`` if it is one, or ConfigurationError."""
    try:
        return _retention(retention)
    except _Refused as refused:
        raise ConfigurationError(f"{where} must be {refused}; got {_shown(retention)}") from None


def stored_backoff(stored: Mapping[str, Any]) -> Backoff | None:
    """The backoff that ``to_stored`` wrote, if any."""
    return from_dict(stored["backoff"]) if "backoff" in stored else None


class _Refused(Exception):
    """Carries what the option allows."""


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}... ({type(value).__name__})"


def _queue(value: object) -> str:
    try:
        name = check_name("queue", value)
    except ConfigurationError:
        raise _Refused(f"a name of 1 to {MAX_NAME} characters without control characters") from None
    if name == SYSTEM_QUEUE:
        raise _Refused(f"another name than {SYSTEM_QUEUE!r}, which is flowrun's own queue")
    return name


def _whole(low: int, high: int) -> Callable[[object], int]:
    def checked(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _Refused(f"a whole number from {low} to {high}")
        return value

    return checked


def _time(*, zero: bool) -> Callable[[object], float]:
    def checked(value: object) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not isfinite(cast(float, value)) or not 0 <= cast(float, value) <= LONGEST:
            raise _Refused("a number of seconds between 0 and 100 years")
        if not zero and value == 0:
            raise _Refused("more than 0 seconds (leave it out for no limit)")
        return float(cast(float, value))

    return checked


def _moment(value: object) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise _Refused("a datetime with a time zone, as in datetime.now(UTC)")
    return value


def _start_by(value: object) -> datetime | float:
    if isinstance(value, datetime):
        return _moment(value)
    try:
        return _time(zero=False)(value)
    except _Refused:
        raise _Refused("a datetime with a time zone, or a number of seconds from dispatch") from None


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Refused("True or False")
    return value


def _key(value: object) -> str:
    if not isinstance(value, str) or not _KEY.fullmatch(value) or len(value.encode()) > _KEY_BYTES:
        raise _Refused(f"a text of 1 to {MAX_KEY} characters ({_KEY_BYTES:,} bytes) without control characters")
    return value


def _limit(value: object) -> tuple[str, int] | int:
    try:
        if isinstance(value, tuple | list) and len(cast(Sequence[object], value)) == 2:
            key, count = cast(Sequence[object], value)
            return _short_key(key), _whole(1, 1_000_000)(count)
        return _whole(1, 1_000_000)(value)
    except _Refused:
        raise _Refused("a key and a whole number from 1 up, as in ('tenant-7', 5), or such a number alone") from None


def _short_key(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _Refused(f"a text of 1 to {MAX_NAME} characters without control characters")
    return value


def _conflict(value: object) -> str:
    if not isinstance(value, str) or value not in _CONFLICTS:
        raise _Refused("'existing', 'replace' or 'raise'")
    return value


def _backoff(value: object) -> Backoff:
    if isinstance(value, list | tuple):
        try:
            return steps(*cast("Sequence[float]", value))
        except ConfigurationError:
            raise _Refused("a list of seconds, one at least, each 0 or more") from None
    if not callable(value):
        raise _Refused("one of flowrun.backoff, a list of seconds, or a function from the attempt's number to seconds")
    return cast(Backoff, value)


def _window(value: object) -> tuple[str, float]:
    try:
        if isinstance(value, tuple | list) and len(cast("Sequence[object]", value)) == 2:
            key, seconds = cast("Sequence[object]", value)
            return _key(key), _time(zero=False)(seconds)
    except _Refused:
        pass
    raise _Refused("a key and a number of seconds, as in ('user-7', 60.0)")


def _retention(value: object) -> Retention:
    if isinstance(value, Mapping):
        given = cast("Mapping[Any, object]", value)
        if not given or not given.keys() <= set(_OUTCOMES):
            raise _Refused(f"seconds, or seconds by outcome: {', '.join(_OUTCOMES)}")
        return cast(Retention, {outcome: _kept(seconds) for outcome, seconds in given.items()})
    return _kept(value)


def _kept(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise _Refused("a number of seconds, 0 or more (math.inf: for ever), or such numbers by outcome")
    return float(value)


def _exceptions(value: object) -> tuple[type[BaseException], ...]:
    kinds = tuple(value) if isinstance(value, Sequence) else (value,)
    if not kinds or not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise _Refused("an exception type or several")
    return cast(tuple[type[BaseException], ...], kinds)


def _tags(value: object) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(tag, str) for tag in value):
        raise _Refused("a list of texts")
    if len(value) > MAX_TAGS:
        raise _Refused(f"a list of at most {MAX_TAGS} texts, these are {len(value):,}")
    try:
        return [check_name("tag", tag) for tag in value]
    except ConfigurationError:
        raise _Refused(f"a list of texts of 1 to {MAX_NAME} characters without control characters") from None


def _on_lost(value: object) -> str:
    if not isinstance(value, str) or value not in {"retry", "fail"}:
        raise _Refused("'retry' or 'fail'")
    return value


def _callback(value: object) -> Any:
    if not hasattr(value, "as_callback"):
        raise _Refused("a job, as in handler.job(...)")
    return value


_CHECKS: Final[dict[str, Callable[[object], Any]]] = {
    "queue": _queue,
    "priority": _whole(0, 9),
    "attempts": _whole(1, 32_000),
    "backoff": _backoff,
    "timeout": _time(zero=False),
    "delay": _time(zero=True),
    "run_at": _moment,
    "start_by": _start_by,
    "retry_on": _exceptions,
    "give_up_on": _exceptions,
    "optional": _flag,
    "tags": _tags,
    "key": _key,
    "on_conflict": _conflict,
    "key_ttl": _time(zero=False),
    "debounce": _window,
    "throttle": _window,
    "retention": _retention,
    "limit": _limit,
    "sequence": _short_key,
    "fair_key": _short_key,
    "on_failure": _callback,
    "on_lost": _on_lost,
}
