-- Edges that test a job's result, which lead from a join from now on: the join looks at the result, and at what the job
-- spawned besides. The children's counters stay as they are.
--   $1 uuid the job  $2 uuid[] child  $3 smallint[] condition  $4 uuid[] join  $5 text[] what the edge says now (JSON)
-- Locks: the job's edges. The flow is locked, and the job's lease.
update flowrun.edges set parent_id = u.join_id, test = u.test::jsonb
from unnest($2::uuid[], $3::smallint[], $4::uuid[], $5::text[]) as u (child_id, condition, join_id, test)
where edges.parent_id = $1 and edges.child_id = u.child_id and edges.condition = u.condition
