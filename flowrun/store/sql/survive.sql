-- Jobs that were lost with their worker before, and whose attempt has ended like any other: the count of losses in a row
-- begins anew.
--   $1 uuid[] jobs
-- Locks: the rows of `jobs`, by id. Their leases are held, or they have left them in this transaction.
with held as materialized (
    select j.id
    from (select id from unnest($1::uuid[]) as u (id) order by id) u
    cross join lateral (select id from flowrun.jobs where jobs.id = u.id for update) j
)
update flowrun.jobs set options = options || jsonb_build_object('survived', options -> 'lost')
from held
where jobs.id = held.id and options ? 'lost'
