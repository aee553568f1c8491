-- What has happened in a flow, as far as what is stored tells: every row that is written once is an event.
--   $1 uuid flow
-- Result: kind, at, job, flow, name, type, attempt, error type, message, progress, and the seconds that the server has
-- worked for it; in order of time. A commit can come
-- later than its time says, so whoever reads again looks at everything again.
-- Index: jobs_flow, and by primary key from there.
with recursive inside (id) as (
    select $1::uuid
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
),
node as materialized (
    select j.id, j.flow_id, j.name, j.type
    from inside join flowrun.jobs j on j.flow_id = inside.id
    where j.kind in (0, 3, 4, 5)
),
happened (kind, at, job_id, attempt, error_type, message, progress) as (
    select 'job_started', f.started_at, node.id, f.attempt, null::text, null::text, null::float8
    from node
    cross join lateral (select started_at, attempt from flowrun.finished where finished.id = node.id offset 0) f
    where f.started_at is not null
    union
    select 'job_started', a.started_at, node.id, a.attempt, null, null, null
    from node
    cross join lateral (select started_at, attempt from flowrun.attempts where attempts.job_id = node.id offset 0) a
    where a.started_at is not null
    union
    select 'job_started', l.claimed_at, node.id, u.attempt, null, null, null
    from flowrun.leases l
    cross join lateral unnest(l.jobs, l.attempts) as u (id, attempt)
    join node on node.id = u.id
    union all
    select 'attempt_failed', a.ended_at, node.id, a.attempt, a.error_type, a.message, null
    from node
    cross join lateral (select * from flowrun.attempts where attempts.job_id = node.id offset 0) a
    union all
    select
        (array['job_succeeded', 'job_failed', 'job_cancelled', 'job_skipped'])[f.outcome], f.finished_at, node.id,
        f.attempt, f.error ->> 'type', f.error ->> 'message', null
    from node
    cross join lateral (select * from flowrun.finished where finished.id = node.id offset 0) f
    union all
    select 'progress', p.reported_at, node.id, null, null, p.message, p.fraction
    from node
    cross join lateral (select * from flowrun.progress where progress.job_id = node.id offset 0) p
    union all
    select 'gate_opened', g.opened_at, node.id, null, null, g.signal, null
    from node
    cross join lateral (select * from flowrun.gates where gates.id = node.id offset 0) g
    union all
    select a.verb, a.done_at, a.job_id, null, null, concat_ws(': ', a.actor, a.reason), null
    from flowrun.audit a where a.flow_id = $1
    union all
    select 'flow_started', created_at, null, null, null, null, null from flowrun.flows where id = $1
    union all
    select 'flow_finished', f.finished_at, null, null, null, (array['succeeded', 'failed', 'cancelled', 'skipped'])[f.outcome], null
    from flowrun.finished f where f.id = $1
)
select h.kind, h.at, h.job_id, coalesce(node.flow_id, $1) as flow_id, node.name, node.type, h.attempt, h.error_type, h.message, h.progress,
    extract(epoch from clock_timestamp() - statement_timestamp())::float8 as took
from happened h
left join node on node.id = h.job_id
order by h.at, h.kind <> 'flow_started', h.kind = 'flow_finished', h.kind <> 'job_started', h.job_id
