"""A job as written, before it has an id: its type, its arguments, its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from flowrun.core import options as job_options
from flowrun.core.options import JobOptions
from flowrun.core.states import Kind
from flowrun.errors import ConfigurationError

if TYPE_CHECKING:
    from typing_extensions import Unpack

R_co = TypeVar("R_co", covariant=True)

_NOTHING: Final[JobOptions] = {}


class JobSpec(Generic[R_co]):
    """A job to be dispatched, or to be added to a flow. It is only a description: nothing is stored yet.

    ``args`` and ``kwargs`` are the handler's, as the caller gave them; they are checked when the job is dispatched.
    """

    __slots__ = ("_dispatcher", "args", "defaults", "item", "kind", "kwargs", "overrides", "type")

    def __init__(
        self,
        type: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        defaults: JobOptions | None = None,
        overrides: JobOptions | None = None,
        dispatcher: Any = None,
        kind: Kind = Kind.HANDLER,
        item: JobSpec[Any] | None = None,
    ) -> None:
        self.type: str = type
        self.kind: Kind = kind
        self.item: JobSpec[Any] | None = item
        """Of a map: the job that each item becomes."""
        self.args: tuple[Any, ...] = tuple(args)
        self.kwargs: dict[str, Any] = dict(kwargs or {})
        self.defaults: JobOptions = _NOTHING if defaults is None else defaults
        self.overrides: JobOptions = _NOTHING if overrides is None else overrides
        self._dispatcher = dispatcher

    def options(self, **options: Unpack[JobOptions]) -> Self:
        """The same job with other options; what it had before stays where ``options`` says nothing.

        Raises ConfigurationError for an unknown option or a value it does not allow.

        >>> JobSpec("send_email").options(priority=1, delay=5.0).overrides["priority"]
        1
        """
        checked = job_options.check(options, f"job {self.type!r}")
        return type(self)(
            self.type,
            self.args,
            self.kwargs,
            defaults=self.defaults,
            overrides=job_options.merge(checked, self.overrides),
            dispatcher=self._dispatcher,
            kind=self.kind,
            item=self.item,
        )

    @property
    def of_queues(self) -> Mapping[str, JobOptions]:
        """By queue: options of its jobs, where neither they nor their handler says otherwise. None, where nobody here
        knows the handler: what it says would have to win."""
        found: Mapping[str, JobOptions] = getattr(self._dispatcher, "of_queues", None) or {}
        return found if found and self._dispatcher.registry.find(self.type) is not None else {}

    def as_callback(self, where: str) -> dict[str, Any]:
        """The job as it is stored with another after whose failure it runs. Raises ConfigurationError without an
        app."""
        if self._dispatcher is None:
            raise ConfigurationError(f"{where}: on_failure= must be a job of an app: handler.job(...) or app.job(...)")
        stored: dict[str, Any] = self._dispatcher.stored_callback(self)
        return stored

    def __repr__(self) -> str:
        """The type and options; never the arguments, which may be secret."""
        return f"<JobSpec {self.type!r} {dict(self.overrides)!r}>" if self.overrides else f"<JobSpec {self.type!r}>"
