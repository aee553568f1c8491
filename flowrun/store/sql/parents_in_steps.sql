-- What jobs of a flow that are dealt with in steps wait for, and its end may have to wait for: by step, what is no callback,
-- compensation or verdict. What has ended comes too: it may run again before the step is done.
--   $1 uuid outermost flow  $2 uuid[] jobs  $3 uuid[] the lowest job of each step, ascending
-- Result: (step from 0, parent), each once.
-- Index: flows_root, jobs_flow, edges_pkey by parent: edges have no index by child, so all of the flow is looked at, once
-- for all steps.
-- `is true` keeps the look-up hashed: see open_parents.sql.
-- Locks: none.
with wanted as materialized (
    select distinct id from unnest($2::uuid[]) as u (id)
)
select distinct width_bucket(e.child_id, $3::uuid[]) - 1 as step, j.id
from flowrun.flows fl
cross join lateral (select id, kind, options from flowrun.jobs where jobs.flow_id = fl.id offset 0) j
cross join lateral (select child_id from flowrun.edges where edges.parent_id = j.id offset 0) e
where
    fl.root_id = $1 and j.kind <> 6
    and (j.options ?| array['callback', 'compensates']) is not true
    and (e.child_id in (select id from wanted)) is true
