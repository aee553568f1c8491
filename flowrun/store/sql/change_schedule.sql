-- Another rule, or something else to dispatch, for a schedule that is locked.
--   $1 to $12 as in insert_schedule.sql: $1 text key  $2 text cron  $3 bigint every  $4 text timezone
--   $5 timestamptz start  $6 timestamptz end  $7 text overlap  $8 text catchup  $9 smallint kind  $10 text name
--   $11 text template (JSON)  $12 timestamptz next tick  $13 boolean nothing waits any more
-- Index: schedules_pkey. Locks: the row.
update flowrun.schedules
set
    cron = $2, every_us = $3, timezone = $4, starts_at = $5, ends_at = $6, overlap = $7, catchup = $8, kind = $9,
    name = $10, template = $11::text::jsonb, next_at = $12,
    waits_for = case when $13 then null else waits_for end,
    changed_at = clock_timestamp()
where key = $1
