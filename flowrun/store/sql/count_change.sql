-- Queues were changed: no worker claims before it has looked.
--   $1 text[] their names
-- Result: id and count of the workers that live and serve any of them: those who have to hear of it.
-- Run once in the transaction that changes, and once more after its commit, which is the count that is waited for: a
-- worker that registers meanwhile saw no change and was not counted.
-- Locks: all `workers` rows, by id.
with counted as (
    update flowrun.workers set changes = changes + 1
    where id = any(array(select id from flowrun.workers order by id for update))
    returning id, changes, queues, expires_at
)
select id, changes from counted
where expires_at > now() and queues && $1
