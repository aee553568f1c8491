-- Parents that had not ended when their children began: none of the children's attempts is to see them, whatever becomes
-- of them. Kept with the job, whose claim brings it along.
--   $1 uuid[] job  $2 text[] all that it is not to see (JSON)
-- Locks: the jobs' rows, by id.
update flowrun.jobs set options = coalesce(options, '{}') || jsonb_build_object('unseen', u.parents)
from (
    select j.id, u.parents
    from (select * from unnest($1::uuid[], $2::text[]::jsonb[]) as u (id, parents) order by id) u
    cross join lateral (select id from flowrun.jobs where jobs.id = u.id for no key update) j
) u
where jobs.id = u.id
