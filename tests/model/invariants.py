"""What must hold in the tables: by SQL, in any snapshot or at rest. The numbers are those of the reliability notes.

How many of its edges a job needs is kept only while it waits (``blocked.need``), so these checks cannot tell a join
that was released too early by one edge; the property test knows how every join was written and does.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import asyncpg

EDGES = """
edge as (
    select
        e.parent_id, e.child_id, e.asks as condition, p.id is not null as decided, p.finished_at,
        p.id is not null and (
            e.asks = 2
            or (e.asks = 1 and p.outcome = 2)
            or (e.asks = 3 and p.outcome = 1)
            or (e.asks = 4 and p.outcome = 3)
            or (e.asks in (0, 4) and (p.outcome = 1 or (p.outcome = 2 and parent.optional)))
        ) and case
            when e.op is null then true
            when p.outcome is distinct from 1 then false
            when e.op = '==' then e.got = e.value
            when e.op = '!=' then e.got <> e.value
            when e.op = 'in' then e.value @> jsonb_build_array(e.got)
            when e.op = 'not in' then not e.value @> jsonb_build_array(e.got)
            when e.op = 'contains' then
                (jsonb_typeof(e.got) = 'string' and position(e.value #>> '{}' in e.got #>> '{}') > 0)
                or (jsonb_typeof(e.got) = 'array' and e.got @> jsonb_build_array(e.value))
                or (jsonb_typeof(e.got) = 'object' and e.got ? (e.value #>> '{}'))
            when jsonb_typeof(e.got) <> jsonb_typeof(e.value) then false
            else (e.op = '<' and e.got < e.value) or (e.op = '<=' and e.got <= e.value)
                or (e.op = '>' and e.got > e.value) or (e.op = '>=' and e.got >= e.value)
        end as satisfied
    from (
        select
            edges.parent_id, edges.child_id, coalesce((test ->> 'on')::int, condition) as asks, test ->> 'op' as op,
            test -> 'value' as value,
            coalesce(
                (select result from flowrun.finished where id = parent_id)
                #> array(select jsonb_array_elements_text(test -> 'path')),
                'null'
            ) as got
        from flowrun.edges
    ) e
    left join flowrun.jobs parent on parent.id = e.parent_id
    left join flowrun.finished p on p.id = e.parent_id
),
operated as (
    -- Jobs of flows in which people have decided something by hand: what they kept need not follow from what is now.
    select j.id from flowrun.jobs j left join flowrun.flows fl on fl.id = j.flow_id
    where exists (
        select from flowrun.audit a
        where a.verb in ('retry', 'resolve', 'skip') and (a.job_id = j.id or a.flow_id = fl.root_id or a.flow_id = j.id)
    )
),
held as (
    select u.id, u.attempt, l.worker_id, l.n, l.claimed_at
    from flowrun.leases l, unnest(l.jobs, l.attempts) as u (id, attempt)
),
running as (
    -- A job that is finished stays in its lease's array until the whole lease is spent.
    select * from held where not exists (select from flowrun.finished f where f.id = held.id)
),
released as (
    select id from flowrun.ready
    union all select id from flowrun.scheduled
    union all select id from running
    union all select id from flowrun.finished where outcome in (1, 2)
)
"""


LOST_FLOWS = """
select j.id from flowrun.jobs j join flowrun.edges e on e.parent_id = j.id
where j.kind = 1 and e.test ? 'rivals' and exists (
    select from jsonb_array_elements_text(e.test -> 'rivals') r join flowrun.finished f on f.id = r::uuid
    where f.outcome = 1 or e.test ->> 'on' <> '0'
)
"""
HARMLESS = ("another won the race", "another item of the map failed", "not to be compensated")
"""Why jobs are cancelled whose flow can succeed all the same."""


@dataclass(frozen=True)
class Check:
    name: str
    says: str
    sql: str
    at_rest: bool = False
    """Holds only when nothing is under way."""


CHECKS = [
    Check(
        "standing",
        "a job stands in exactly one of blocked, scheduled, ready, leases, gates, finished",
        """
        select j.id, array_remove(array_agg(s.place order by s.place), null) as places
        from flowrun.jobs j
        left join (
            select id, 'blocked' as place from flowrun.blocked
            -- A gate with a time limit stands in the schedule besides, and is claimed when its time is over.
            union all select id, 'gate' from flowrun.gates
            union all (
                select id, 'scheduled' from flowrun.scheduled
                union all select id, 'ready' from flowrun.ready
                union all select id, 'running' from running
                except select id, place from flowrun.gates, (values ('scheduled'), ('ready'), ('running')) p (place)
            )
            union all select id, 'finished' from flowrun.finished
        ) s on s.id = j.id
        group by j.id having count(s.place) <> 1
        """,
    ),
    Check(
        "strangers",
        "a row of a state table, an edge or an attempt belongs to a job that exists",
        """
        select s.place, s.id from (
            select id, 'blocked' as place from flowrun.blocked
            union all select id, 'scheduled' from flowrun.scheduled
            union all select id, 'ready' from flowrun.ready
            union all select id, 'leases' from held
            union all select id, 'finished' from flowrun.finished
            union all select job_id, 'attempts' from flowrun.attempts
            union all select parent_id, 'edges' from flowrun.edges
            union all select child_id, 'edges' from flowrun.edges
            union all select id, 'flows' from flowrun.flows
            union all select id, 'gates' from flowrun.gates
            union all select id, 'cancels' from flowrun.cancels
            union all select id, 'deadlines' from flowrun.deadlines
            union all select job_id, 'steps' from flowrun.steps
            union all select job_id, 'progress' from flowrun.progress
            union all select unnest(sources), 'sources' from flowrun.jobs
        ) s where not exists (select from flowrun.jobs j where j.id = s.id)
        """,
    ),
    Check(
        "I1 ordering",
        "a job that has edges starts after at least one parent that satisfies one; after its only parent in any case",
        """
        select f.id, f.started_at from flowrun.finished f
        where f.started_at is not null and f.id not in (select id from operated)
        and exists (select from edge where edge.child_id = f.id)
        and not exists (
            select from edge where edge.child_id = f.id and edge.satisfied and edge.finished_at <= f.started_at
        )
        """,
    ),
    Check(
        "I1 skips",
        "a skipped job was never started, used no attempt, and names as cause a node that people see: the parent that"
        " disappointed it, or one behind a join, or in a flow, that did",
        """
        select f.id, f.started_at, f.attempt, f.cause from flowrun.finished f
        where f.outcome = 4 and f.id not in (select id from operated) and (
            f.started_at is not null or f.attempt <> 0
            or (select kind from flowrun.jobs where id = f.cause) not in (0, 3, 4, 5)
            or not exists (
                select from edge join flowrun.jobs parent on parent.id = edge.parent_id
                where
                    edge.child_id = f.id and edge.decided and not edge.satisfied
                    and (edge.parent_id = f.cause or parent.kind in (1, 2, 6))
            )
        )
        """,
    ),
    Check(
        "I2 lost join",
        "no job waits whose parents have all ended",
        """
        select b.id, b.need, b.open from flowrun.blocked b
        where not exists (select from edge where edge.child_id = b.id and not edge.decided)
        """,
    ),
    Check(
        "I3 false release",
        "no job with edges is past waiting while none of them is satisfied",
        """
        select r.id from released r
        where exists (select from edge where edge.child_id = r.id) and r.id not in (select id from operated)
        and not exists (select from flowrun.finished f where f.id = r.id and f.error ->> 'type' = 'flowrun.StartedTooLate')
        and not exists (select from edge where edge.child_id = r.id and edge.satisfied)
        """,
    ),
    Check(
        "I3 false start",
        "whatever waits for nothing was never blocked, whatever is blocked waits for something",
        """
        select b.id from flowrun.blocked b where not exists (select from edge where edge.child_id = b.id)
        """,
    ),
    Check(
        "I6 counters",
        "open is the number of undecided edges; need and the satisfied ones together are no more than all",
        """
        select b.id, b.need, b.open, e.undecided, e.satisfied, e.total
        from flowrun.blocked b
        cross join lateral (
            select
                count(*) as total,
                count(*) filter (where not edge.decided) as undecided,
                count(*) filter (where edge.satisfied) as satisfied
            from edge where edge.child_id = b.id
        ) e
        where b.open <> e.undecided or b.need + e.satisfied > e.total or b.need < 1 or b.need > b.open
        """,
    ),
    Check(
        "I7 one lease",
        "a job is under way once at most",
        "select id, count(*) from running group by id having count(*) > 1",
    ),
    Check(
        "I8 settled once",
        "success and failure belong to an attempt, a skip to none, a cancel to one that ran; none beyond what it has",
        """
        select f.id, j.kind, f.outcome, f.attempt, f.started_at, j.options
        from flowrun.finished f join flowrun.jobs j on j.id = f.id
        where f.id not in (select id from operated) and (
            f.started_at > f.finished_at
            or (
                f.attempt > (j.options ->> 'attempts')::int + coalesce((j.options ->> 'before')::int, 0)
                    + coalesce((j.options ->> 'lost')::int, 0)
            )
            or case f.outcome
                when 4 then f.attempt > 0 or f.started_at is not null
                when 3 then f.attempt = 0 and f.started_at is not null
                -- A signal ends a gate that is in no lease; so does start_by a job that nobody has claimed.
                else (f.attempt = 0 or f.started_at is null) and j.kind <> 3
                    and coalesce(f.error ->> 'type', '') <> 'flowrun.StartedTooLate'
            end
        )
        """,
    ),
    Check(
        "I8 attempts",
        "of a job that succeeded only earlier attempts failed; of one that failed the last one is kept, once each",
        """
        select j.id, f.outcome, f.attempt, a.attempts from flowrun.finished f
        join flowrun.jobs j on j.id = f.id and j.kind = 0
        cross join lateral (
            select coalesce(array_agg(attempt order by attempt), '{}') as attempts
            from flowrun.attempts where job_id = f.id
        ) a
        where f.id not in (select id from operated) and (
            (f.outcome = 1 and f.attempt <= any(a.attempts))
            or (
                f.outcome = 2 and f.attempt <> all(a.attempts)
                and f.error ->> 'type' <> 'flowrun.StartedTooLate'
            )
            or f.attempt < any(a.attempts)
        )
        """,
    ),
    Check(
        "I12 orphans",
        "a lease belongs to a worker that is known",
        """
        select l.worker_id, l.n, l.jobs from flowrun.leases l
        where not exists (select from flowrun.workers w where w.id = l.worker_id)
        """,
    ),
    Check(
        "I17 closed",
        "in a flow that has ended nothing is under way but its callbacks",
        """
        select j.flow_id, j.id, j.name, j.kind from flowrun.jobs j
        join flowrun.finished flow_end on flow_end.id = j.flow_id
        where not exists (select from flowrun.finished f where f.id = j.id)
        and not exists (select from flowrun.edges e where e.parent_id = j.flow_id and e.child_id = j.id)
        """,
    ),
    Check(
        "ready rows",
        "what is ready is ready as its job says",
        """
        select r.id, r.queue, r.priority, r.type from flowrun.ready r join flowrun.jobs j on j.id = r.id
        where (r.queue, r.priority, r.type) <> (j.queue, j.priority, j.type)
        """,
    ),
    Check(
        "at rest",
        "nothing is under way",
        """
        select * from (
            select id, 'blocked' as place from flowrun.blocked
            union all select id, 'scheduled' from flowrun.scheduled
            union all select id, 'ready' from flowrun.ready
            union all select id, 'gates' from flowrun.gates
            union all select id, 'leases' from held
        ) s
        """,
        at_rest=True,
    ),
]


async def check(connection: asyncpg.Connection[Any], *, at_rest: bool = True) -> None:
    """AssertionError lists the rows that break an invariant. ``at_rest=False``: while work is going on."""
    if connection.is_in_transaction():
        problems = await broken(connection, at_rest)
    else:
        # One snapshot for all of them.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            problems = await broken(connection, at_rest)
    assert not problems, "\n".join(problems)


async def broken(connection: asyncpg.Connection[Any], at_rest: bool) -> list[str]:
    problems = []
    for one in CHECKS:
        if at_rest or not one.at_rest:
            rows = await connection.fetch(f"with {EDGES} select * from ({one.sql}) broken limit 20")
            problems += [f"{one.name} ({one.says}): {dict(row)}" for row in rows]
    return problems + await _flow_states(connection)


async def _flow_states(connection: asyncpg.Connection[Any]) -> list[str]:
    """I16: what each ended flow's jobs make of it, reckoned here once more."""
    rows = await connection.fetch(
        """
        select j.id, j.kind, j.flow_id, j.optional, f.outcome, f.spoils, f.error ->> 'message' as why,
            coalesce(j.options ? 'compensates', false) as compensates,
            exists (select from flowrun.edges e where e.parent_id = j.flow_id and e.child_id = j.id) as callback
        from flowrun.jobs j join flowrun.finished f on f.id = j.id
        """
    )
    roots = dict(await connection.fetch("select id, root_id from flowrun.flows"))
    outermost = set(roots.values())
    members: dict[Any, list[Any]] = defaultdict(list)
    problems = []
    # An inner flow that loses a race does no harm, also where it fails.
    lost = {row[0] for row in await connection.fetch(LOST_FLOWS)}
    for row in rows:
        # A compensation is the outermost flow's affair: it runs, or not, when the inner flow has long ended.
        home = roots.get(row["flow_id"]) if row["compensates"] else row["flow_id"]
        spoils = home if row["outcome"] == 3 or (row["outcome"] == 2 and not row["optional"]) else None
        # The join that a flow begins with is cancelled with the flow, which speaks for itself.
        passive = row["compensates"] or row["why"] in HARMLESS or row["kind"] == 2
        harmless = row["callback"] or (row["outcome"] == 3 and passive) or (row["id"] in lost and row["spoils"] is None)
        # What is in a flow that lost a race says how that one went.
        inside = row["why"] in HARMLESS and home not in outermost
        if row["spoils"] != (None if harmless else spoils) and not (inside and row["spoils"] == spoils):
            problems.append(f"I16 spoils: job {row['id']} spoils {row['spoils']}, not {None if harmless else spoils}")
        if row["kind"] not in (2, 6) and not row["callback"] and (row["spoils"] == home or not harmless):
            members[home].append(row)
    ends = await connection.fetch(
        "select fl.id, f.outcome, fl.root_id, f.started_at from flowrun.flows fl join flowrun.finished f on f.id = fl.id"
    )
    # Nothing of a flow that was cancelled need have been.
    cancelled = {row[0] for row in await connection.fetch("select job_id from flowrun.audit where verb = 'cancel'")}
    again = "select flow_id from flowrun.audit where verb in ('retry', 'resolve', 'skip')"
    operated = {row[0] for row in await connection.fetch(again)}
    for flow, outcome, root, started_at in ends:
        if root in operated or flow in operated:
            continue
        outcomes = {row["outcome"] for row in members[flow] if not (row["outcome"] == 2 and row["optional"])}
        right = {2} if 2 in outcomes else {3} if 3 in outcomes else {1, 4} if outcomes <= {4} else {1}
        if flow not in outermost and (outcomes <= {3, 4} or root in cancelled):
            right |= {4}  # it was never entered, and then the flow around it was cancelled
        if flow not in outermost and started_at is None and outcomes <= {3, 4}:
            right |= {3}  # it was cancelled before it was entered, with all that is in it, if anything is
        if outcome not in right:
            problems.append(
                f"I16 flow state: flow {flow} ended with outcome {outcome}, its jobs make it {sorted(right)}"
            )
    return problems
