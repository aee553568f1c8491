"""What a handler dispatches and spawns while it runs: kept back until its attempt is settled as a success."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from flowrun import codec
from flowrun.core.attempt import Claimed
from flowrun.core.flow import After, Flow, Node
from flowrun.core.growth import Growth, Outbox
from flowrun.core.job import JobSpec
from flowrun.core.node import conditions
from flowrun.core.plan import Plan
from flowrun.errors import FlowrunError, InvalidFlow

R = TypeVar("R")

PIECE = 100
"""Dispatches of a handler after which others have their turn."""

Compile = Callable[[Flow, UUID, str, "tuple[UUID, str]", "list[Node[Any]]"], Growth]
"""From the new nodes, the flow they are added to, what their names begin with, the job that spawned them and the nodes
that its children do not wait for."""


class AttemptOutbox:
    """The outbox of one attempt."""

    def __init__(self, job: Claimed, compile: Compile) -> None:
        self._job = job
        self._compile = compile
        self._singles = Plan()
        self._flows: list[Plan] = []
        self._fragment: Flow | None = None
        self._detached: list[Node[Any]] = []
        self._closed = False
        self._dispatches = 0

    async def keep(self, plan: Plan) -> None:
        """Keep back a dispatch. Nothing is written and waited for: now and then other jobs are given their turn."""
        self._put(plan)
        self._dispatches += 1
        if self._dispatches % PIECE == 0:
            await asyncio.sleep(0)

    def _put(self, plan: Plan) -> None:
        self._check_open()
        if plan.flows:
            self._flows.append(plan)
        else:
            self._singles.jobs += plan.jobs
            self._singles.keys += plan.keys
            self._singles.deadlines += plan.deadlines
            self._singles.free = self._singles.jobs

    def spawn(self, spec: JobSpec[R], after: After | None, name: str | None, detached: bool) -> Node[R]:
        """Keep back a new node of the job's own flow."""
        self._check_open()
        job = self._job
        if job.flow_id is None:
            raise InvalidFlow(f"job {job.type!r} is not a node of a flow: nothing to grow; dispatch() it instead")
        if self._fragment is None:
            self._fragment = Flow(job.name or job.type)
        node = self._fragment.add(spec, name=name)
        if after is not None:
            node.after = conditions(self._fragment, after)
        if detached:
            self._detached.append(node)
        return node

    @property
    def size(self) -> int:
        """How many jobs it holds, about."""
        spawned = 0 if self._fragment is None else len(self._fragment.nodes)
        return spawned + len(self._singles.jobs) + sum(len(plan.jobs) for plan in self._flows)

    def close(self) -> None:
        """The job is settled in its handler's transaction: nothing more can go with it."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise FlowrunError("the job is completed: dispatch before tx.complete(), or with now=True")

    def sealed(self) -> Outbox:
        """It as the settle writes it. Raises InvalidFlow or InvalidArguments."""
        job = self._job
        plans = [plan for plan in (self._singles, *self._flows) if plan.jobs]
        growth: Growth | None = None
        if self._fragment is not None and job.flow_id is not None:
            prefix, slash, name = (job.name or "").rpartition("/")
            if job.options is not None and '"stays"' in job.options and codec.load(job.options).get("stays"):
                for node in self._fragment.nodes:
                    node.cleanup = True  # what a node that cleans up spawns is a part of that
            growth = self._compile(self._fragment, job.flow_id, prefix + slash, (job.id, name), self._detached)
        return Outbox(plans, growth)
