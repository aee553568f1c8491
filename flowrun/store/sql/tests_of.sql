-- What waits for a job in a way that spawning has to look at: by a test of its result, or for its success or cancelling.
--   $1 uuid the job
-- Result: child, the edge's number, condition, test (JSON; null: its result is not tested).
-- Index: edges_pkey. The flow is locked, and the job's lease: no more edges come.
select
    child_id, condition as number, coalesce((test ->> 'on')::smallint, condition) as condition,
    case when test ? 'op' then test::text end as test
from flowrun.edges
where parent_id = $1 and (coalesce((test ->> 'on')::smallint, condition) = 4 or test ? 'op')
