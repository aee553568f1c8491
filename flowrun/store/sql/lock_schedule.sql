-- A schedule, locked.
--   $1 text key
-- Index: schedules_pkey. Locks: the row.
select
    key, cron, every_us, timezone, starts_at, ends_at, overlap, catchup, kind, name, template, paused, next_at,
    waits_for, last_at, last_id
from flowrun.schedules
where key = $1
for update
