-- Take away the gates that wait for a signal.
--   $1 uuid outermost flow  $2 text signal
-- Result: their ids. One whose time has just run out may be in a lease meanwhile: what its settle says then comes late.
-- Locks: none but what is held (hold_places.sql): gates, and their rows in `scheduled` and `ready`.
with opened as (
    delete from flowrun.gates where root_id = $1 and signal = $2 returning id
),
untimed as (
    delete from flowrun.scheduled where id in (select id from opened)
),
unready as (
    delete from flowrun.ready using flowrun.jobs
    where jobs.id in (select id from opened)
    and ready.queue = jobs.queue and ready.priority = jobs.priority and ready.id = jobs.id
)
select id from opened
