-- Which of some jobs come after a job, by any way.
--   $1 uuid the job  $2 uuid[] those that are asked about
-- Index: edges_pkey, from the job on downwards. The flow is locked.
with recursive below (id) as (
    select $1::uuid
    union
    select e.child_id
    from below
    cross join lateral (select child_id from flowrun.edges where edges.parent_id = below.id offset 0) e
)
select id from below where id = any($2) and id <> $1
