-- A worker has heard of changed queues: it begins no job any more by what it knew before.
--   $1 uuid worker  $2 integer how many changes it knows
-- Locks: the worker's row.
update flowrun.workers set heard = $2
where id = $1 and heard is distinct from $2
