"""What runs when a job has failed for good: said by the job, or by its handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowrun import codec, mint
from flowrun.core import compile as compiler
from flowrun.core.callback import Call, Failed
from flowrun.core.job import JobSpec
from flowrun.core.references import contains
from flowrun.errors import ConfigurationError, InvalidArguments

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client


class Calls:
    """Answers what runs after a failure, with what the handlers of this process say."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __call__(self, failed: Failed) -> Call | None:
        """What the job itself says, else its handler."""
        if failed.on_failure is not None:  # its arguments were sealed for that, if at all
            return _read(codec.load(failed.on_failure))
        definition = self._client.registry.find(failed.type)
        if definition is None:
            return None
        said: Any = definition.options.get("on_failure")
        if said is None and definition.on_failure is not None:
            callback = definition.on_failure
            said = JobSpec(callback.type, defaults=callback.options)
        if said is None:
            return None
        call = _read(to_stored(self._client, said))
        return call._replace(args=self._client.sealing.json(call.args, failed.id, "on_failure"))


def to_stored(client: Client, spec: JobSpec[Any]) -> dict[str, Any]:
    """A job that is to run after a failure, as it is stored with the one that may fail. Raises InvalidArguments."""
    where = f"on_failure= job {spec.type!r}"
    if contains([*spec.args, *spec.kwargs.values()]):
        raise InvalidArguments(f"{where}: it cannot use results of nodes; its handler can take the JobError")
    for option in ("key", "start_by", "on_failure", "run_at"):
        if option in spec.overrides:
            raise ConfigurationError(f"{where} cannot have {option}=")
    try:
        row = compiler.compile_job(spec, client.encode, codec.dump, mint.job_id).jobs[0]
    except InvalidArguments as error:
        raise InvalidArguments(f"on_failure= {error}") from None
    return {
        "type": row.type, "queue": row.queue, "priority": row.priority, "args": codec.load(row.args),
        "options": None if row.options is None else codec.load(row.options), "delay": row.delay,
    }  # fmt: skip


def _read(stored: dict[str, Any]) -> Call:
    options = stored["options"]
    return Call(
        stored["type"],
        stored["queue"],
        stored["priority"],
        codec.dump(stored["args"]),
        None if options is None else codec.dump(options),
        stored["delay"],
    )
