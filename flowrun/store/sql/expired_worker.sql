-- One worker whose time is up, locked for its rescue.
-- Locks: one `workers` row, skipping locked ones: its heartbeat waits, other rescuers pass by.
select id, name from flowrun.workers where expires_at < now() order by id limit 1 for update skip locked
