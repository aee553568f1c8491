-- Schedules as people see them, by key.
--   $1 text key; null: all
-- Index: schedules_pkey. Locks: none.
select
    s.key, s.cron, s.every_us, s.timezone, s.starts_at, s.ends_at, s.overlap, s.catchup, s.kind, s.name, s.paused,
    s.next_at, s.waits_for, s.last_at, s.last_id, s.dispatched, s.skipped, s.created_at, s.changed_at,
    s.last_id is not null
    and exists (select from flowrun.jobs where jobs.id = s.last_id)
    and not exists (select from flowrun.finished where finished.id = s.last_id) as running
from flowrun.schedules s
where $1::text is null or s.key = $1
order by s.key
