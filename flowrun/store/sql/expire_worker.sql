-- A worker was ended, and not asked to: its time is over, so that others give it up, and count what it ran as lost.
--   $1 uuid worker
-- Index: workers_pkey. Locks: its row.
update flowrun.workers set expires_at = now() where id = $1
