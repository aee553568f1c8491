-- When the next tick is due.
--   $1 timestamptz the moment it is; null: by the database's clock  $2 text[] schedules that this process cannot read
-- Result: seconds; null: there is none. Index: schedules_next_at. Locks: none.
select extract(epoch from (
    select greatest(next_at, '1970-01-01') from flowrun.schedules
    where next_at < 'infinity' and waits_for is null and not paused and key <> all($2::text[])
    order by next_at
    limit 1
) - coalesce($1::timestamptz, now()))::float8
