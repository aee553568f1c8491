-- What waits for a job waits for the joins of what it spawned instead. Their counters stay as they are: the same number
-- of edges, from another parent. What undoes the job (condition 3), or runs when it failed (1), goes on asking about the
-- job itself; so do tests of its result, which part_edges.sql has moved.
--   $1 uuid the job  $2 uuid join on success  $3 uuid join on any end  $4 uuid join on success or cancel (null: none is asked for)
-- Locks: the job's edges. The flow is locked, and the job's lease.
update flowrun.edges
set parent_id = case coalesce((test ->> 'on')::smallint, condition) when 2 then $3::uuid when 4 then $4::uuid else $2::uuid end
where
    parent_id = $1 and coalesce((test ->> 'on')::smallint, condition) in (0, 2, 4) and (test ? 'op') is not true
