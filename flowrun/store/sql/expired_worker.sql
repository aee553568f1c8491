-- One worker whose jobs nobody runs, locked for its rescue: its time is up, or its row is gone and a lease is not. That
-- happens when a claim, or a settle with a handoff, commits while the worker is being given up: the rescue cannot see
-- the new lease, and to lock the worker's row in every claim would cost a multixact each.
-- Result: id, name.
-- Index: leases_pkey, one step a worker. `leases` is as large as it is busy, and never read as a whole.
-- Locks: one `workers` row, skipping locked ones: its heartbeat waits, other rescuers pass by.
with recursive expired as materialized (
    select id, name from flowrun.workers where expires_at < now() order by id limit 1 for update skip locked
),
holder (id) as (
    (select worker_id from flowrun.leases order by worker_id limit 1)
    union all
    select (select worker_id from flowrun.leases where worker_id > holder.id order by worker_id limit 1)
    from holder where holder.id is not null
)
select id, name from expired
union all
(
    select id, id::text from holder
    where id is not null and not exists (select from flowrun.workers where workers.id = holder.id)
    limit 1
)
