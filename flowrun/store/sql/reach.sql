-- The part of a graph that the end of some jobs can change: their own edges, and, behind every child that may now be
-- skipped, all edges further down.
--   $1 uuid[] jobs that ended  $2 smallint[] outcome  $3 boolean[] optional
-- Result: edges (parent_id, child_id, condition).
-- Reads only. Locks come next, by lock_blocked.sql.
with recursive ended as (
    select * from unnest($1::uuid[], $2::smallint[], $3::boolean[]) as u (id, outcome, optional)
),
own as (
    select
        e.parent_id, e.child_id, e.condition,
        e.condition = 2
        or (e.condition = 1 and ended.outcome = 2)
        or (e.condition = 3 and ended.outcome = 1)
        or (e.condition = 0 and (ended.outcome = 1 or (ended.outcome = 2 and ended.optional))) as satisfied
    from ended
    cross join lateral (
        select parent_id, child_id, condition from flowrun.edges where edges.parent_id = ended.id offset 0
    ) e
),
below (id) as (
    select child_id from own where not satisfied
    union
    select e.child_id
    from below
    cross join lateral (select child_id from flowrun.edges where edges.parent_id = below.id offset 0) e
)
select parent_id, child_id, condition from own
union
select e.parent_id, e.child_id, e.condition
from below
cross join lateral (
    select parent_id, child_id, condition from flowrun.edges where edges.parent_id = below.id offset 0
) e
