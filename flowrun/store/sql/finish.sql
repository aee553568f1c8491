-- Write outcomes, of any kind.
--   $1 uuid[] job  $2 smallint[] outcome  $3 smallint[] attempt  $4 text[] result (JSON)  $5 timestamptz[] started_at
--   $6 uuid[] cause  $7 text[] error (JSON; of a skip with {parent} for the name of its cause)
--   $8 boolean[] harmless: the flow can succeed all the same
-- Result: id, outcome, optional of the jobs that had no outcome before; of a handler's job that failed also its type and
-- what is to run then. A failed or cancelled job that is not optional
-- spoils its flow, unless it is a callback, which comes after it, or a compensation that was cancelled. A compensation that
-- failed spoils the outermost flow: it runs when the one it stands in may have ended long ago.
-- Locks: only what it inserts; a job that another session is finishing right now is waited for, then left alone.
with new as (
    insert into flowrun.finished (id, outcome, attempt, result, started_at, finished_at, spoils, cause, error)
    select
        u.id, u.outcome, u.attempt, u.result::jsonb, u.started_at, clock_timestamp(),
        case
            when u.harmless or j.callback then null
            when u.outcome = 3 and not j.undoes then j.flow_id
            when u.outcome = 2 and not j.optional and not j.undoes then j.flow_id
            when u.outcome = 2 and not j.optional then (select root_id from flowrun.flows where flows.id = j.flow_id)
        end,
        u.cause,
        case
            when u.cause is null then u.error
            else replace(u.error, '{parent}', substr(parent.name, 2, length(parent.name) - 2))
        end::jsonb
    from unnest(
        $1::uuid[], $2::smallint[], $3::smallint[], $4::text[], $5::timestamptz[], $6::uuid[], $7::text[], $8::boolean[]
    ) with ordinality as u (id, outcome, attempt, result, started_at, cause, error, harmless, place)
    cross join lateral (
        select flow_id, optional, coalesce(options ? 'callback', false) as callback,
            coalesce(options ? 'compensates', false) as undoes
        from flowrun.jobs where jobs.id = u.id offset 0
    ) j
    left join lateral (
        select to_jsonb(coalesce(jobs.name, jobs.type))::text as name from flowrun.jobs where jobs.id = u.cause offset 0
    ) parent on u.cause is not null
    order by u.place
    on conflict (id) do nothing
    returning id, outcome
),
asked as (
    delete from flowrun.cancels where id = any(array(select id from new))
)
select
    new.id, new.outcome, j.optional,
    case when new.outcome = 2 and j.kind = 0 then j.type end,
    case when new.outcome = 2 then (j.options -> 'on_failure')::text end
from new
cross join lateral (select optional, kind, type, options from flowrun.jobs where jobs.id = new.id offset 0) j
