-- A new schedule.
--   $1 text key  $2 text cron  $3 bigint every  $4 text timezone  $5 timestamptz start  $6 timestamptz end
--   $7 text overlap  $8 text catchup  $9 smallint kind  $10 text name  $11 text template (JSON)
--   $12 timestamptz next tick
-- Result: its key; none if there is one of that key. Locks: what it inserts; waits for who inserts the same key.
insert into flowrun.schedules (
    key, cron, every_us, timezone, starts_at, ends_at, overlap, catchup, kind, name, template, next_at
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::jsonb, $12)
on conflict (key) do nothing
returning key
