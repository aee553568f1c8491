-- Jobs that wait for no other and belong to no flow: one row in `jobs` and one in `ready` or `scheduled`.
--   $1 uuid[] id  $2 text[] queue  $3 text[] type  $4 text[] args (JSON)  $5 smallint[] priority  $6 boolean[] optional
--   $7 float8[] delay  $8 timestamptz[] run_at  $9 text[] options (JSON)
--   $10 text[] channels and $11 text[] payloads to tell in the same commit, where that is asked for (see Notifier.ride)
-- Locks: only what it inserts. Sent again after an ambiguous commit it changes nothing (same ids).
with new as (
    insert into flowrun.jobs (id, queue, type, args, priority, optional, delay, run_at, options)
    select u.id, u.queue, u.type, u.args::jsonb, u.priority, u.optional, u.delay, u.run_at, u.options::jsonb
    from unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::boolean[], $7::float8[], $8::timestamptz[],
        $9::text[]
    ) as u (id, queue, type, args, priority, optional, delay, run_at, options)
    on conflict (id) do nothing
    returning id, queue, type, priority, delay, run_at
),
timed as (
    insert into flowrun.scheduled (id, run_at)
    select id, greatest(now() + make_interval(secs => case when delay > 1e10 then 1e10 else delay end), run_at) from new
    where delay is not null or run_at is not null
),
now_ready as (
    insert into flowrun.ready (queue, priority, id, type)
    select queue, priority, id, type from new
    where delay is null and run_at is null
)
select pg_notify(u.channel, u.payload) from unnest($10::text[], $11::text[]) as u (channel, payload)
