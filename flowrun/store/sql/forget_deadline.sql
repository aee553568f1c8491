-- A deadline that is over has been dealt with.
--   $1 uuid job or flow
-- Index: deadlines_pkey. Locks: the row, after all that the job or flow itself is held by.
delete from flowrun.deadlines where id = $1 and due_at <= now()
