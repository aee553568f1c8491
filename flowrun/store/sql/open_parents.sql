-- What some jobs of a flow wait for, and its end has to wait for: what has not ended, and is no callback, compensation or
-- verdict.
--   $1 uuid outermost flow  $2 uuid[] jobs
-- Index: flows_root, jobs_flow, finished_pkey, edges_pkey by parent: edges have no index by child, so all that is open in
-- the flow is looked at.
-- `is true` keeps the look-up hashed: as a join it became a loop over both sides, 10 s for 1,000 jobs of 20,000.
-- Locks: none. The flow is locked.
with wanted as materialized (
    select distinct id from unnest($2::uuid[]) as u (id)
)
select j.id
from flowrun.flows fl
cross join lateral (select id, kind, options from flowrun.jobs where jobs.flow_id = fl.id offset 0) j
left join lateral (select id from flowrun.finished where finished.id = j.id offset 0) f on true
where
    fl.root_id = $1 and f.id is null and j.kind <> 6
    and (j.options ?| array['callback', 'compensates']) is not true
    and exists (
        select from (select child_id from flowrun.edges where edges.parent_id = j.id offset 0) e
        where (e.child_id in (select id from wanted)) is true
    )
