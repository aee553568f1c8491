-- Seconds until the next moment at which something happens by itself: a job is due, time is up, a schedule ticks.
--   $1 timestamptz the moment it is for schedules; null: by the database's clock
-- Result: seconds, negative if it is overdue; null: there is no such moment.
-- Index: scheduled_run_at, deadlines_due_at, schedules_next_at. Locks: none.
select least(
    extract(epoch from (select greatest(run_at, '1970-01-01') from flowrun.scheduled where run_at < 'infinity' order by run_at limit 1) - clock_timestamp()),
    extract(epoch from (
        select greatest(due_at, '1970-01-01') from flowrun.deadlines where due_at < 'infinity' order by due_at limit 1
    ) - clock_timestamp()),
    extract(epoch from (
        select greatest(next_at, '1970-01-01') from flowrun.schedules
        where next_at < 'infinity' and waits_for is null and not paused
        order by next_at limit 1
    ) - coalesce($1::timestamptz, clock_timestamp()))
)::float8
