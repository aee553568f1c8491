-- A type was paused or resumed: no worker claims before it has looked. As count_change.sql, and run as that is.
--   $1 text[] types
-- Result: id and count of the workers that live and have a handler of any of them: those who have to hear of it.
-- Locks: all `workers` rows, by id.
with counted as (
    update flowrun.workers set changes = changes + 1
    where id = any(array(select id from flowrun.workers order by id for update))
    returning id, changes, types, expires_at
)
select id, changes from counted
where expires_at > now() and types && $1
