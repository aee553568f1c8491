"""Jobs and flows that can be dispatched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from flowrun.core import flow as core_flow
from flowrun.core import job as core_job
from flowrun.errors import ConfigurationError

if TYPE_CHECKING:
    from flowrun.client.dispatch import Client
    from flowrun.client.runs import FlowRun, JobRun

R_co = TypeVar("R_co", covariant=True)


class JobSpec(core_job.JobSpec[R_co]):
    """A job to be dispatched, or to be added to a flow: ``handler.job(...)``."""

    __slots__ = ()

    async def dispatch(self) -> JobRun[R_co]:
        """Store the job, to be run as soon as its options allow.

        When it returns, the job is committed. Raises InvalidArguments when the arguments do not fit the handler or
        cannot be stored.

            run = await charge_payment.job(order_id=1, token="t").options(priority=1, delay=5.0).dispatch()
        """
        return await _client(self._dispatcher, f"job {self.type!r}").dispatch_job(self)


class Flow(core_flow.Flow):
    """A flow to be written and dispatched: ``app.flow("order")``."""

    _dispatcher: Client | None = None

    async def dispatch(self) -> FlowRun:
        """Store the whole flow in one transaction; its first nodes run at once.

        Raises InvalidFlow (a cycle, an unknown node, a duplicate name) or InvalidArguments, with the nodes named,
        before anything is written.

            run = await flow.dispatch()
        """
        return await _client(self._dispatcher, f"flow {self.name!r}").dispatch_flow(self)


def _client(dispatcher: Any, what: str) -> Client:
    if dispatcher is None:
        raise ConfigurationError(
            f"{what} belongs to no app; make it by handler.job(...), app.job(...) or app.flow(...)"
        )
    return cast("Client", dispatcher)
