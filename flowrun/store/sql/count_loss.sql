-- Count that handlers' jobs were lost with their worker: apart from their failures.
--   $1 uuid[] jobs
-- Result: job, how often in a row it was lost. None for flowrun's own jobs, which run no code that could be to blame.
-- Locks: the rows of `jobs`, by id. Their leases are held.
with held as materialized (
    select j.id
    from (select id from unnest($1::uuid[]) as u (id) order by id) u
    cross join lateral (select id from flowrun.jobs where jobs.id = u.id and kind = 0 for update) j
)
update flowrun.jobs
set options = case when jsonb_typeof(options) = 'object' then options else '{}' end
    || jsonb_build_object('lost', case when options ->> 'lost' ~ '^[0-9]{1,8}$' then (options ->> 'lost')::integer else 0 end + 1)
from held
where jobs.id = held.id
returning
    jobs.id, (jobs.options ->> 'lost')::integer - case when jobs.options ->> 'survived' ~ '^[0-9]{1,8}$' then (jobs.options ->> 'survived')::integer else 0 end
