-- What a job waits for.
--   $1 uuid job  $2 uuid its flow
-- Result: the parent's name, what is asked of it (condition, test), its outcome (null: none yet), and whether it runs.
-- Index: jobs_flow and edges_pkey: edges have none by child, so all that lead from the flows around are looked at.
with recursive around (id) as (
    select $2::uuid
    union
    select j.flow_id from around join flowrun.jobs j on j.id = around.id where j.flow_id is not null
),
parent as (
    select j.id, coalesce(j.name, j.type) as name, j.kind, j.optional
    from around join flowrun.jobs j on j.flow_id = around.id
    union all
    select j.id, coalesce(j.name, j.type), j.kind, j.optional from around join flowrun.jobs j on j.id = around.id
)
select
    parent.name, case when e.test ->> 'on' ~ '^[0-4]$' then (e.test ->> 'on')::smallint when e.condition < 5 then e.condition else 0::smallint end as condition, e.test::text as test, parent.kind,
    f.outcome, exists (select from flowrun.leases where leases.jobs @> array[parent.id]) as runs
from parent
cross join lateral (
    select condition, test from flowrun.edges where edges.parent_id = parent.id and edges.child_id = $1 offset 0
) e
left join flowrun.finished f on f.id = parent.id
order by parent.id
