-- Pause a schedule, or let it go on with another tick than the one it stopped at.
--   $1 text key  $2 boolean paused  $3 timestamptz next tick
-- Index: schedules_pkey. Locks: the row.
update flowrun.schedules set paused = $2, next_at = $3, waits_for = null, changed_at = clock_timestamp() where key = $1
