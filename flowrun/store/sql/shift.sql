-- Bring nearer, by so many seconds, all that is to happen at a moment: for tests, where time is moved on. Schedules do not
-- move, their moments being those of a calendar: they are told what moment it is.
--   $1 float8 seconds
-- Index: none: it writes all rows. Locks: those rows.
with due as (
    update flowrun.scheduled set run_at = run_at - make_interval(secs => $1)
),
dated as (
    update flowrun.jobs set run_at = run_at - make_interval(secs => $1) where run_at is not null
),
deadline as (
    update flowrun.deadlines set due_at = due_at - make_interval(secs => $1) where due_at < 'infinity'
),
key as (
    update flowrun.keys set expires_at = expires_at - make_interval(secs => $1) where expires_at is not null
)
update flowrun.starts set started_at = started_at - make_interval(secs => $1)
