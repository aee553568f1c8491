-- Whether a deadline is over and nobody has dealt with it.
--   $1 uuid job or flow
-- Index: deadlines_pkey. Locks: none.
select id from flowrun.deadlines where id = $1 and due_at <= now()
