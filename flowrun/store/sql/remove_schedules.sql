-- Remove a schedule, or all. What they dispatched stays.
--   $1 text key; null: all
-- Result: their keys. Index: schedules_pkey. Locks: the rows.
delete from flowrun.schedules where $1::text is null or key = $1 returning key
