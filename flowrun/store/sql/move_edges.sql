-- What waits for a job waits for the joins of what it spawned instead. Their counters stay as they are: the same number
-- of edges, from another parent. What undoes the job (condition 3) goes on asking about the job itself.
--   $1 uuid the job  $2 uuid join on success  $3 uuid join on any end
-- Locks: the job's edges. The flow is locked, and the job's lease.
update flowrun.edges set parent_id = case when condition = 2 then $3::uuid else $2::uuid end
where parent_id = $1 and condition in (0, 2, 4)
