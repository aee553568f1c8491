-- What the jobs of a flow wait for, those of the flows inside it included; joins are looked through.
--   $1 uuid flow
-- Result: name of the child, name of the parent, condition; in topological order of the children.
with recursive inside (id) as (
    select $1::uuid
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
),
node as materialized (
    select j.id, j.name, j.kind from inside join flowrun.jobs j on j.flow_id = inside.id
),
edge as materialized (
    select e.parent_id, e.child_id, case when e.test ->> 'on' ~ '^[0-4]$' then (e.test ->> 'on')::smallint when e.condition < 5 then e.condition else 0::smallint end as condition
    from node
    cross join lateral (select * from flowrun.edges where edges.parent_id = node.id offset 0) e
),
reached (parent_id, child_id, condition) as (
    select parent_id, child_id, condition from edge
    union
    select reached.parent_id, edge.child_id, reached.condition
    from reached
    join node on node.id = reached.child_id and node.kind = 2
    join edge on edge.parent_id = reached.child_id
)
select child.name, parent.name, reached.condition
from reached
join node child on child.id = reached.child_id
join node parent on parent.id = reached.parent_id
where child.kind in (0, 3, 4, 5) and parent.kind <> 2 and parent.kind <> 6
order by child.id, parent.id, reached.condition
