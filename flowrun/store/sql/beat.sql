-- A worker lives: its leases hold for $2 more seconds. Nothing else is asked here, and no other table named: what somebody
-- does to those must not cost a worker its leases. See news.sql.
--   $1 uuid worker  $2 float8 lease in seconds
-- Result: how often a queue was changed; no row when the worker was given up and its jobs are somebody else's.
-- Index: workers_pkey.
-- Locks: this worker's row.
update flowrun.workers set expires_at = now() + make_interval(secs => $2) where id = $1 returning changes
