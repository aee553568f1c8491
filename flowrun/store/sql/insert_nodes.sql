-- New nodes of a stored flow: jobs, edges, counters. What waits for nothing is put in its place by copied_free.sql.
--   $1 uuid[] id  $2 uuid[] flow_id  $3 smallint[] kind  $4 text[] name  $5 text[] queue  $6 text[] type  $7 text[] args
--   $8 text[] sources (array literals)  $9 text[] bindings (JSON)  $10 smallint[] priority  $11 boolean[] optional
--   $12 float8[] delay  $13 timestamptz[] run_at  $14 text[] options (JSON)
--   $15 text[] parents (array literals)
--   $16 uuid[] parent  $17 uuid[] child  $18 smallint[] condition
--   $19 uuid[] blocked  $20 integer[] need  $21 integer[] open
-- Locks: only what it inserts; the flow is locked.
with new as (
    insert into flowrun.jobs (
        id, flow_id, kind, name, queue, type, args, sources, bindings, priority, optional, delay, run_at, options,
        parents
    )
    select
        u.id, u.flow_id, u.kind, u.name, u.queue, u.type, u.args::jsonb, u.sources::uuid[], u.bindings::jsonb,
        u.priority, u.optional, u.delay, u.run_at, u.options::jsonb,
        u.parents::uuid[]
    from unnest(
        $1::uuid[], $2::uuid[], $3::smallint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::text[], $10::smallint[], $11::boolean[], $12::float8[], $13::timestamptz[], $14::text[],
        $15::text[]
    ) as u (
        id, flow_id, kind, name, queue, type, args, sources, bindings, priority, optional, delay, run_at, options,
        parents
    )
),
edge as (
    insert into flowrun.edges (parent_id, child_id, condition)
    select u.parent_id, u.child_id, u.condition
    from unnest($16::uuid[], $17::uuid[], $18::smallint[]) as u (parent_id, child_id, condition)
)
insert into flowrun.blocked (id, need, open)
select u.id, u.need, u.open
from unnest($19::uuid[], $20::integer[], $21::integer[]) as u (id, need, open)
