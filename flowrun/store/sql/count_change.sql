-- A queue was changed: no worker claims before it has looked.
-- Locks: all `workers` rows, by id.
update flowrun.workers set changes = changes + 1
where id = any(array(select id from flowrun.workers order by id for update))
