-- What has become of schedules whose time had come.
--   $1 text[] key  $2 timestamptz[] next tick  $3 uuid[] the run that has to end before it
--   $4 timestamptz[] tick that was dispatched, or null  $5 uuid[] as what  $6 integer[] ticks dispatched
--   $7 integer[] ticks left out
-- Index: schedules_pkey. Locks: `schedules` rows, which the transaction has locked.
update flowrun.schedules
set
    next_at = u.next_at,
    waits_for = u.waits_for,
    last_at = coalesce(u.last_at, schedules.last_at),
    last_id = coalesce(u.last_id, schedules.last_id),
    dispatched = schedules.dispatched + u.dispatched,
    skipped = schedules.skipped + u.skipped
from unnest(
    $1::text[], $2::timestamptz[], $3::uuid[], $4::timestamptz[], $5::uuid[], $6::integer[], $7::integer[]
) as u (key, next_at, waits_for, last_at, last_id, dispatched, skipped)
where schedules.key = u.key
