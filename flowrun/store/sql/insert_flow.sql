-- A compiled flow: its jobs, edges, counters, and what waits for nothing.
--   $1 uuid[] id  $2 uuid[] flow_id  $3 smallint[] kind  $4 text[] name  $5 text[] queue  $6 text[] type  $7 text[] args
--   $8 text[] sources (array literals)  $9 text[] bindings (JSON)  $10 smallint[] priority  $11 boolean[] optional
--   $12 float8[] delay  $13 timestamptz[] run_at  $14 text[] options (JSON)
--   $15 uuid[] parent  $16 uuid[] child  $17 smallint[] condition
--   $18 uuid[] blocked  $19 integer[] need  $20 integer[] open
--   $21 uuid[] flow  $22 uuid root  $23 text[] flow name  $24 text[] flow tags (array literals)
--   $25 uuid the job whose handler dispatched it  $26 uuid[] jobs that wait for nothing
--   $27 text[] parents (array literals)
--   $28 text[] channels and $29 text[] payloads to tell in the same commit, where that is asked for (see Notifier.ride)
-- Result: one row if the flow was new; none if it had been written before (same ids after an ambiguous commit).
-- Locks: only what it inserts. `flows` goes first and decides: a repeat waits for, and finds, the first one's row.
with flow as (
    insert into flowrun.flows (id, root_id, name, tags, dispatched_by)
    select u.id, $22, u.name, u.tags::text[], $25
    from unnest($21::uuid[], $23::text[], $24::text[]) as u (id, name, tags)
    on conflict (id) do nothing
    returning id
),
new as (
    insert into flowrun.jobs (
        id, flow_id, kind, name, queue, type, args, sources, bindings, priority, optional, delay, run_at, options,
        parents
    )
    select
        u.id, u.flow_id, u.kind, u.name, u.queue, u.type, u.args::jsonb, u.sources::uuid[], u.bindings::jsonb,
        u.priority, u.optional, u.delay, u.run_at, u.options::jsonb, u.parents::uuid[]
    from unnest(
        $1::uuid[], $2::uuid[], $3::smallint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::text[], $10::smallint[], $11::boolean[], $12::float8[], $13::timestamptz[], $14::text[], $27::text[]
    ) as u (
        id, flow_id, kind, name, queue, type, args, sources, bindings, priority, optional, delay, run_at, options,
        parents
    )
    where exists (select from flow where flow.id = $22)
    returning id, queue, type, priority, delay, run_at
),
edge as (
    insert into flowrun.edges (parent_id, child_id, condition)
    select u.parent_id, u.child_id, u.condition
    from unnest($15::uuid[], $16::uuid[], $17::smallint[]) as u (parent_id, child_id, condition)
    where exists (select from flow where flow.id = $22)
),
counter as (
    insert into flowrun.blocked (id, need, open)
    select u.id, u.need, u.open
    from unnest($18::uuid[], $19::integer[], $20::integer[]) as u (id, need, open)
    where exists (select from flow where flow.id = $22)
),
free as (
    select new.* from new where (new.id in (select unnest($26::uuid[]))) is true
),
timed as (
    insert into flowrun.scheduled (id, run_at)
    select id, greatest(now() + make_interval(secs => case when delay > 1e10 then 1e10 else delay end), run_at) from free
    where delay is not null or run_at is not null
),
now_ready as (
    insert into flowrun.ready (queue, priority, id, type)
    select queue, priority, id, type from free
    where delay is null and run_at is null
),
told as materialized (
    select pg_notify(u.channel, u.payload) from unnest($28::text[], $29::text[]) as u (channel, payload)
)
select flow.id from flow where flow.id = $22 and (select count(*) from told) >= 0
