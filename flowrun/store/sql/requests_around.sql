-- The innermost of the flows around that was asked to stop: it takes in nothing new.
--   $1 uuid flow
-- Result: reason, actor; no row where none was.
-- Index: jobs_pkey, cancels_pkey.
with recursive around (id, depth) as (
    select $1::uuid, 0
    union all
    select j.flow_id, around.depth + 1
    from around
    cross join lateral (select flow_id from flowrun.jobs where jobs.id = around.id offset 0) j
    where j.flow_id is not null
)
select c.reason, c.actor
from around
cross join lateral (select reason, actor from flowrun.cancels where cancels.id = around.id offset 0) c
order by around.depth
limit 1
