-- What troubles a worker, for people to see.
--   $1 uuid worker  $2 text JSON, or null: nothing does any more
-- Locks: the worker's row.
update flowrun.workers set trouble = $2::jsonb where id = $1
