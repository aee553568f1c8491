-- All types of jobs there are: those that workers have handlers for, those that are paused, and those that are ready.
-- Result: name, paused, jobs that are ready, live workers that have a handler.
-- Index: none: all that is ready is counted. For people, not often.
-- Locks: none.
with waiting as materialized (
    select type as name, count(*) as jobs from flowrun.ready where queue <> 'flowrun' group by type
),
known as materialized (
    select t.name, count(*) as workers
    from flowrun.workers w
    cross join lateral unnest(w.types) as t (name)
    where w.expires_at > now()
    group by t.name
),
named as (
    select name from flowrun.types where paused
    union
    select name from known
    union
    select name from waiting
)
select named.name, coalesce(t.paused, false), coalesce(waiting.jobs, 0), coalesce(known.workers, 0)
from named
left join flowrun.types t on t.name = named.name
left join waiting on waiting.name = named.name
left join known on known.name = named.name
order by named.name
