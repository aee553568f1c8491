-- What jobs wait for whose parents were not recorded: who dispatched them knew a handler that does not ask.
--   $1 uuid[] the jobs
-- Result: (child, parent), for the jobs and for the joins they are seen through.
-- Slow: edges have no index by child, so all edges of the flows that the jobs are in, and of the flows around those, are
-- gone through by parent. It happens only while an old program dispatches to a new one.
with recursive around (id) as (
    select j.flow_id
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select flow_id from flowrun.jobs where jobs.id = u.id offset 0) j
    where j.flow_id is not null
    union
    select j.flow_id
    from around
    cross join lateral (select flow_id from flowrun.jobs where jobs.id = around.id offset 0) j
    where j.flow_id is not null
),
edge as materialized (
    select distinct e.parent_id, e.child_id
    from (
        select id from around
        union
        select j.id
        from around
        cross join lateral (select id from flowrun.jobs where jobs.flow_id = around.id offset 0) j
    ) member
    cross join lateral (
        select parent_id, child_id from flowrun.edges where edges.parent_id = member.id offset 0
    ) e
),
reach (child_id, parent_id) as (
    select child_id, parent_id from edge where (child_id in (select unnest($1::uuid[]))) is true
    union
    select edge.child_id, edge.parent_id
    from reach
    cross join lateral (select id from flowrun.jobs where jobs.id = reach.parent_id and kind = 2 offset 0) j
    join edge on edge.child_id = j.id
)
select child_id, parent_id from reach
