"""The app: where handlers are registered and everything is put together. It wires and delegates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar
from uuid import UUID

from flowrun.client import bulk
from flowrun.client.dead import FailedJobs
from flowrun.client.dispatch import Client
from flowrun.client.embedded import Embedded
from flowrun.client.gates import Gates
from flowrun.client.hooks import HookKind
from flowrun.client.host import Host, Service
from flowrun.client.job_types import Types
from flowrun.client.listing import Flows, Jobs, Workers, as_id, outcome_of
from flowrun.client.queues import Queues, check_setting
from flowrun.client.registering import Registering
from flowrun.client.retention import Pruned, Retentions, check_age
from flowrun.client.runs import FlowRun, JobRun
from flowrun.client.schedules import Cron, Schedules
from flowrun.client.shield import shielded
from flowrun.client.specs import Flow, JobSpec
from flowrun.config import Settings, SettingsOptions, dsn_from_environment
from flowrun.core import options as job_options
from flowrun.core.flow import Node, flatten
from flowrun.core.options import JobOptions, Retention
from flowrun.core.ticking import Catchup, Overlap
from flowrun.dsn import check_dsn
from flowrun.embedded import default_database, default_directory, directory_from_dsn
from flowrun.errors import ConfigurationError
from flowrun.importable import refuse_while_loading
from flowrun.logs import Log
from flowrun.registry import Registry, is_async
from flowrun.store import migrate as migrations
from flowrun.store.pool import ELSEWHERE, Database
from flowrun.store.prune import Filter
from flowrun.store.queues import QueueSetting
from flowrun.worker.rehearsal import Drained, Rehearsal, Testing, testing
from flowrun.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from typing_extensions import Unpack

    from flowrun.context import CallNext, Job

logger = Log("flowrun")

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound="Callable[[Job, CallNext], Awaitable[Any]]")


class Flowrun(Registering):
    """An app: its handlers, its database.

    ``dsn`` is a PostgreSQL URL, or ``embedded:///path`` for a PostgreSQL that flowrun starts itself in that directory.
    Without it: ``FLOWRUN_DSN``, else the embedded one in the user's data directory, where each project has a database
    of its own. The attribute ``dsn`` is the address in use, for an ORM beside it; of an embedded one from the moment
    that the app is open. ``settings`` are those of
    :class:`flowrun.Settings`: ``schema``, ``listen_dsn``, ``lease``, ``poll``... Nothing is connected before
    ``async with app:``, ``app.worker()`` or ``app.lifespan``.

        app = Flowrun("postgresql://localhost/shop")
    """

    def __init__(self, dsn: str | None = None, **settings: Unpack[SettingsOptions]) -> None:
        self.settings = Settings(**settings)
        if self.settings.listen_dsn is not None:
            check_dsn(self.settings.listen_dsn)
        self.dsn = dsn or dsn_from_environment()
        self.registry = Registry()
        self._directory = default_directory() if self.dsn is None else directory_from_dsn(check_dsn(self.dsn))
        database = Database(
            self.dsn or "", schema=self.settings.schema, pooler=self.settings.pooler, pool_size=self.settings.pool_size
        )
        self.client = Client(database, self.registry, self.settings)
        self.gates: Gates = Gates(self.client)
        """What people are asked: nodes that wait for a signal."""
        self.flows: Flows = Flows(self.client)
        """Flows that are stored."""
        self.jobs: Jobs = Jobs(self.client)
        """Jobs that are stored."""
        self.workers: Workers = Workers(self.client)
        self.queues: Queues = Queues(self.client)
        self.types: Types = Types(self.client)
        """Pauses of types of jobs; of queues their limits and rates, too."""
        self.failed: FailedJobs = FailedJobs(self.client)
        """The dead letter: jobs that failed for good."""
        self.schedules: Schedules = Schedules(self.client)
        """What is dispatched again and again."""
        self._declared: dict[str, QueueSetting] = {}
        self._retentions = Retentions()
        self._users = 0
        self._opening: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._resources: AsyncExitStack | None = None

    def use_dsn(self, dsn: str) -> None:
        """Use another database than the one the app was made with: ``flowrun serve --dsn``, or a test.

        ``listen_dsn`` belonged to the old one and counts no more. Raises ConfigurationError once the app is open.
        """
        if self._users:
            raise ConfigurationError("use_dsn() comes before the app is opened")
        self.dsn = check_dsn(dsn)
        self._directory = directory_from_dsn(dsn)
        pooler = self.settings.pooler and self._directory is None
        self.settings = self.client.settings = replace(self.settings, pooler=pooler, listen_dsn=None)
        self.client.database.dsn, self.client.database.pooler = dsn, pooler

    # -- handlers ---------------------------------------------------------------------------------------------------

    def job(self, type: str, args: Mapping[str, Any] | None = None, **options: Unpack[JobOptions]) -> JobSpec[Any]:
        """A job by the name of its type: its handler may live in another program.

        run = await app.job("charge_payment", {"order_id": 1, "token": "t"}, queue="billing").dispatch()
        """
        job_options.check_name("a job's type", type)
        definition = self.registry.find(type)
        return JobSpec(
            type,
            (),
            args,
            defaults=definition.options if definition is not None else None,
            overrides=job_options.check(options, f"job {type!r}"),
            dispatcher=self.client,
        )

    def cron(
        self,
        rule: str,
        *,
        key: str | None = None,
        timezone: str = "UTC",
        overlap: Overlap = "allow",
        catchup: Catchup = "none",
    ) -> Cron:
        """Run the decorated function at every tick of a cron rule: it becomes a handler, unless it is one already.

        The rest is as for ``app.schedules.put``. The schedule is written when a worker of this app starts, with ``key``
        (default: the handler's type); nothing removes it when the program declares it no more but
        ``app.schedules.remove``. Raises ConfigurationError, also for a handler that needs arguments.

            @app.cron("0 3 * * *", timezone="Europe/Paris", overlap="skip")
            @app.handler(queue="reports")
            async def nightly(job: Job) -> None:
                job.log.info("for %s", job.scheduled_for)
        """
        return self.schedules.declare(rule, self.handler, key=key, timezone=timezone, overlap=overlap, catchup=catchup)

    def on(self, kind: HookKind) -> Callable[[F], F]:
        """Call the decorated function at every event of a kind, in the process where it happens.

        ``attempt_failed`` and ``job_started`` are told by the worker that runs the job; ``job_succeeded``,
        ``job_failed`` (also of a job that was cancelled) and ``flow_finished`` by the process whose commit it was,
        after it. The function is async, or plain and run in a thread; it takes a :class:`HookEvent`, or any of its
        parts by name: ``event``, ``job``, ``error``, ``flow``. What it raises is logged and changes nothing. A process
        that dies has told nobody: what must not be missed belongs into ``on_failure`` or a flow. Raises
        ConfigurationError.

            @app.on("job_failed")
            async def count(job: Job, error: JobError | None) -> None: ...
        """

        def register(function: F) -> F:
            self.client.hooks.add(kind, function)
            return function

        return register

    def middleware(self, function: M) -> M:
        """Run the decorated function around every handler of this app; the first registered is the outermost.

        It gets the running job, and ``call_next``, which runs the rest and returns what the handler returns.

            @app.middleware
            async def timed(job: Job, call_next: CallNext) -> Any:
                with timer(job.type):
                    return await call_next(job)
        """
        if not is_async(function):
            raise ConfigurationError("a middleware is an async function: async def m(job, call_next)")
        self.registry.middleware.append(function)
        return function

    def queue(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        rate: tuple[int, float] | None = None,
        paused: bool | None = None,
        **defaults: Unpack[JobOptions],
    ) -> None:
        """Say how many jobs of a queue may run at once and start in so many seconds, on all workers together.

        Written when a worker of this app starts, for all workers; later changes by ``app.queues`` hold until then.
        ``paused`` only says how a queue begins of which nothing is known: a worker that starts resumes nothing.
        ``defaults`` are options of jobs that this program dispatches to it, where neither the dispatch nor the flow nor
        the handler says otherwise. Raises ConfigurationError.

            app.queue("emails", concurrency=10, rate=(100, 60.0))
        """
        self._declared[name] = check_setting(name, concurrency, rate, paused)
        self.client.set_of_queue(name, job_options.check_of_queue(defaults, f"queue {name!r}"))

    def retention(
        self,
        retention: Retention,
        /,
        *,
        type: str | None = None,
        queue: str | None = None,
        flow: str | None = None,
    ) -> None:
        """Say how many seconds what has ended is kept: all, or jobs of a type or a queue, or flows of a name.

        By outcome, if it is a dict; ``math.inf`` is for ever. The most special counts: a job's or flow's own
        ``retention=``, then its type's (``@app.handler(retention=...)`` says the same), queue's or flow's, then
        everybody's, which is seven days, and thirty for what failed. Written when a worker of this app starts, for all
        workers. Raises ConfigurationError.

            app.retention({"succeeded": 86_400.0, "failed": math.inf})
            app.retention(3600.0, queue="emails")
        """
        self._retentions.add(retention, type=type, queue=queue, flow=flow)

    # -- flows ------------------------------------------------------------------------------------------------------

    def flow(
        self,
        name: str,
        *,
        output: Node[Any] | str | None = None,
        deadline: float | None = None,
        **defaults: Unpack[JobOptions],
    ) -> Flow:
        """An empty flow to add jobs to; the options are defaults for its jobs.

        ``output`` names the node whose result is the flow's. ``deadline``: it is cancelled when it is not done so many
        seconds after its dispatch. ``tags``, ``key``, ``on_conflict`` and ``key_ttl`` are the flow's own: a second
        dispatch of a flow of this name with the same key gives back the first one's run.

            flow = app.flow("order", key="order-42")
        """
        flow = Flow(name, output=output, deadline=deadline, **defaults)
        flow._dispatcher = self.client
        return flow

    def chain(self, *specs: JobSpec[Any] | Flow | Sequence[JobSpec[Any] | Flow], name: str = "chain") -> Flow:
        """A flow of jobs each of which runs after the one before: ``await app.chain(a.job(), b.job()).dispatch()``."""
        flow = self.flow(name)
        flow.chain(flatten(specs))
        return flow

    def group(self, *specs: JobSpec[Any] | Flow | Sequence[JobSpec[Any] | Flow], name: str = "group") -> Flow:
        """A flow of jobs that run side by side: ``await app.group(a.job(), b.job()).dispatch()``."""
        flow = self.flow(name)
        flow.group(flatten(specs))
        return flow

    # -- dispatched already -----------------------------------------------------------------------------------------

    async def dispatch_many(
        self, specs: Sequence[JobSpec[Any]], *, tx: object = None, now: bool = False
    ) -> list[JobRun[Any]]:
        """Store many jobs in one transaction; the runs come in the order of ``specs``.

        ``tx`` and ``now`` as for one job. Of two with the same key the second is a duplicate of the first.

            runs = await app.dispatch_many([send_email.job(to=user) for user in users])
        """
        return await self.client.dispatch_many(specs, tx=tx, now=now)

    async def get_job(self, id: UUID | str) -> JobRun[Any]:
        """The job stored under ``id``. Raises NotFound."""
        return await self.client.get_job(as_id(id))

    async def get_flow(self, id: UUID | str) -> FlowRun:
        """The flow stored under ``id``. Raises NotFound."""
        return await self.client.get_flow(as_id(id))

    async def prune(
        self,
        *,
        older_than: float | None = None,
        state: str | None = None,
        type: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        name: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        """Remove now what has ended and is kept no longer; workers do so by themselves, a little at a time.

        Of that, only what passes the filters: ``name`` is a flow's, ``since`` and ``until`` are of the dispatch.
        ``older_than``: what ended so many seconds ago, whatever its retention. ``dry_run``: only count it.

            await app.prune(older_than=86_400.0, type="probe", dry_run=True)
        """
        what = Filter(check_age(older_than), outcome_of(state), type, queue, tag, name, since, until)
        removed = await bulk.remove(self.client, what, dry_run=dry_run)
        return Pruned(len(removed.jobs), len(removed.flows))

    # -- running ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the pool: dispatch from anywhere. Entering again inside is fine."""
        async with self._lock():
            if self._users == 0:
                await self._open()
            self._users += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send the last wake-ups and close the pool."""
        async with self._lock():
            self._users -= 1
            if self._users == 0 and self._resources is not None:
                resources, self._resources = self._resources, None
                await resources.aclose()

    @asynccontextmanager
    async def worker(
        self,
        *,
        concurrency: int = 100,
        queues: Sequence[str] | Mapping[str, int | None] | None = None,
        grace: float = 30.0,
    ) -> AsyncIterator[Supervisor]:
        """Run jobs in this process: ``async with app.worker(concurrency=100, queues=["default", "billing"]):``.

        ``queues`` defaults to ``"default"`` and those its handlers name; as a dict it says how many of the consumers
        the jobs of a queue may have: ``queues={"default": None, "billing": 10}``. Leaving drains it: nothing more is
        claimed, running jobs have ``grace`` seconds to end, the rest is handed back without using an attempt. Raises
        MigrationNeeded unless ``app.migrate()`` (or ``flowrun migrate``) was run."""
        async with self:
            async with self.client.database.own() as connection:
                await migrations.verify(connection, self.settings.schema)
            served = self._queues() if queues is None else queues
            await self._retentions.declare(self.client)
            if self._declared:
                await self.queues.declare(self._declared.values())
            await self.schedules.put_declared()
            supervisor = Supervisor(self.client, concurrency=concurrency, queues=served, grace=grace)
            host = Host("flowrun-worker", endless=False, refused=supervisor.refused, cut=supervisor.cut)
            await host.start(supervisor.run)
            try:
                yield supervisor
            finally:
                supervisor.stop()
                await host.join()

    async def drain(self, timeout: float = 10.0) -> Drained:
        """Work in this process until nothing is runnable; how many jobs ended, by outcome. For tests.

        What waits for a later moment, for a signal or for a paused queue is left alone. Raises TimeoutError that names
        what still runs or is ready after ``timeout`` seconds::

            await send_email.dispatch(to="ann")
            assert (await app.drain()).succeeded == 1
        """
        async with self:
            return await Rehearsal(self.client, self._queues, self.worker).drain(timeout)

    def testing(self, *, clock: datetime | None = None) -> AbstractAsyncContextManager[Testing]:
        """With a worker, in virtual time that begins at ``clock`` (now): ``async with app.testing() as t:``, then
        ``await t.advance(3600)``, ``t.now``, ``t.crash_at("settle.written")``. For tests."""
        return testing(self.client, Rehearsal(self.client, self._queues, self.worker), self.worker, clock)

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Pool and worker with a web app: ``FastAPI(lifespan=app.lifespan)``."""
        async with self.worker():
            yield

    @asynccontextmanager
    async def lifespan_without_worker(self, _app: object = None) -> AsyncIterator[None]:
        """The pool with a web app: it dispatches, others run the jobs."""
        async with self:
            yield

    async def migrate(self) -> list[str]:
        """Create flowrun's tables, or bring them up to this version; the names of what was applied."""
        async with self, self.client.database.own() as connection:
            done = await shielded(migrations.migrate(connection, self.settings.schema))
            return [f"{step.number:04d}_{step.name}" for step in done]

    # -- inside -----------------------------------------------------------------------------------------------------

    def _queues(self) -> list[str]:
        named = [definition.options.get("queue", "default") for definition in self.registry]
        return list(dict.fromkeys(["default", *named]))

    def _lock(self) -> asyncio.Lock:
        """One opens or closes at a time; the lock belongs to the running loop.

        Raises ConfigurationError when the app is open in another one. What was open in a loop that ended is forgotten.
        """
        loop = asyncio.get_running_loop()
        if self._opening is None or self._opening[0] is not loop:
            if self._opening is not None and self._users:
                if not self._opening[0].is_closed():
                    raise ConfigurationError(ELSEWHERE)
                self._users, self._resources = 0, None
                self.client.database.forget()
            self._opening = (loop, asyncio.Lock())
        return self._opening[1]

    async def _open(self) -> None:
        refuse_while_loading()
        self.client.renew()
        async with AsyncExitStack() as stack:
            services: list[Service] = []
            if self._directory is not None:
                embedded = await self._start_embedded(self._directory, stack)
                services.append(embedded.run)
            database = self.client.database
            stack.push_async_callback(database.close)
            await self.client.open()
            host = Host("flowrun-client")
            await host.start(self.client.notifier.run, self.client.singles.run, self.client.waits.run, *services)
            stack.push_async_callback(host.stop)
            stack.push_async_callback(self.client.notifier.flush)
            if self._directory is not None:
                async with database.own() as connection:
                    await shielded(migrations.migrate(connection, self.settings.schema))
            self._resources = stack.pop_all()

    async def _start_embedded(self, directory: Path, stack: AsyncExitStack) -> Embedded:
        name = default_database()
        if self.dsn is None:
            logger.warning(
                "no DSN and no FLOWRUN_DSN: using the embedded PostgreSQL in %s, database %s", directory, name
            )
        embedded = Embedded(directory, name)
        stack.callback(embedded.close)
        self.dsn = self.client.database.dsn = await embedded.start()
        return embedded
