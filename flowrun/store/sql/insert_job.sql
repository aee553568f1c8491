-- One job that is ready at once, without a flow: insert_jobs.sql for who dispatches one by one. Arrays and moments cost
-- it a tenth of the time (0.20 against 0.23 ms; 0.87 against 0.98 where nothing was dispatched for 20 ms).
--   $1 uuid id  $2 text queue  $3 text type  $4 text args (JSON)  $5 smallint priority  $6 boolean optional
--   $7 text options (JSON)
--   $8 text channel and $9 text payload to tell in the same commit, null where that is not asked for (see Notifier.ride)
-- Locks: only what it inserts. Sent again after an ambiguous commit it changes nothing (same id).
with new as (
    insert into flowrun.jobs (id, queue, type, args, priority, optional, options)
    values ($1, $2, $3, $4::text::jsonb, $5, $6, $7::text::jsonb)
    on conflict (id) do nothing
    returning id, queue, type, priority
),
now_ready as (
    insert into flowrun.ready (queue, priority, id, type)
    select queue, priority, id, type from new
)
select pg_notify($8, $9) where $8 is not null
