"""Jobs and flows that can be dispatched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, cast

from flowrun.core import flow as core_flow
from flowrun.core import job as core_job
from flowrun.core.node import After, Node
from flowrun.errors import ConfigurationError, InvalidFlow

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client
    from flowrun.client.runs import FlowRun, JobRun

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class JobSpec(core_job.JobSpec[R_co]):
    """A job to be dispatched, or to be added to a flow: ``handler.job(...)``."""

    __slots__ = ()

    async def dispatch(self, *, tx: object = None, now: bool = False) -> JobRun[R_co]:
        """Store the job, to be run as soon as its options allow.

        When it returns, the job is committed; with ``tx`` it is part of the caller's own transaction, visible with it
        and rolled back with it. ``tx`` is an asyncpg connection, a SQLAlchemy AsyncSession or AsyncConnection (over
        asyncpg or psycopg), or a psycopg AsyncConnection; the app need not be open for it. ``now``: inside a handler,
        write at once instead of with the attempt's settle.

        Raises InvalidArguments when the arguments do not fit the handler or cannot be stored, DuplicateKey when
        ``on_conflict="raise"`` and the key is held, ConfigurationError for another kind of ``tx``, DatabaseError when
        the transaction is closed, aborted or read-only.

            run = await charge_payment.job(order_id=1, token="t").options(priority=1, delay=5.0).dispatch(tx=session)
        """
        return await _client(self._dispatcher, f"job {self.type!r}").dispatch_job(self, tx=tx, now=now)


class HasItem(Protocol[R_co]):
    """A handler, as far as mapping over items is concerned."""

    def item(self) -> JobSpec[R_co]:
        """A job of it whose arguments are not complete yet."""
        ...


Mappable: TypeAlias = "HasItem[R] | core_job.JobSpec[R]"


class Flow(core_flow.Flow):
    """A flow to be written and dispatched: ``app.flow("order")``."""

    _dispatcher: Client | None = None

    async def dispatch(self, *, tx: object = None, now: bool = False) -> FlowRun:
        """Store the whole flow in one transaction; its first nodes run at once.

        ``tx`` and ``now`` as for a job: with ``tx`` it is part of the caller's own transaction; ``now``: inside a
        handler, write at once instead of with the attempt's settle.

        Raises InvalidFlow (a cycle, an unknown node, a duplicate name) or InvalidArguments, with the nodes named,
        before anything is written; and what dispatching a job raises.

            run = await flow.dispatch()
        """
        return await _client(self._dispatcher, f"flow {self.name!r}").dispatch_flow(self, tx=tx, now=now)

    def map(
        self,
        handler: Mappable[R],
        over: Any,
        *,
        argument: str | None = None,
        after: After | None = None,
        name: str | None = None,
        optional: bool | None = None,
        on_error: Literal["finish", "cancel_siblings"] = "finish",
    ) -> Node[list[R]]:
        """Add a node that becomes one job an item of ``over``, when that is known; its result is the list of theirs.

        ``over`` is a list, or a parent's result that is one (or a part of it). Each item is passed as ``argument``
        (default: the handler's first parameter that is not given yet). The results come in the order of the items; an
        empty list is done at once. If an item fails, the others go on (``on_error="finish"``) or are cancelled
        (``"cancel_siblings"``), and the node has failed. With ``optional=True`` items may fail: their result is None.

            quotes = flow.map(quote, over=pay.result["carriers"])
            flow.add(choose.job(quotes.result))

        Raises InvalidFlow where it cannot be told which argument is the item.
        """
        spec = _mappable(handler, self.name)
        client = _client(spec._dispatcher or self._dispatcher, f"job {spec.type!r}")
        template, item = client.item(spec, argument)
        return self._map(
            template,
            client.items(template, item, over),
            item,
            after=after,
            name=name,
            optional=optional,
            on_error=on_error,
        )


def _mappable(handler: Mappable[R], flow: str) -> core_job.JobSpec[R]:
    if isinstance(handler, core_job.JobSpec):
        return handler
    if not hasattr(handler, "item"):
        raise InvalidFlow(f"flow {flow!r}: map() takes a handler, or handler.job(...), not {type(handler).__name__}")
    return handler.item()


def _client(dispatcher: Any, what: str) -> Client:
    if dispatcher is None:
        raise ConfigurationError(
            f"{what} belongs to no app; make it by handler.job(...), app.job(...) or app.flow(...)"
        )
    return cast("Client", dispatcher)
