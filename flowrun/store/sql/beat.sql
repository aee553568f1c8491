-- A worker lives: its leases hold for $2 more seconds.
--   $1 uuid worker  $2 float8 lease in seconds
-- Result: no row when the worker was given up and its jobs are somebody else's; else whether another worker's time is
-- up, and the seconds until the next scheduled job is due.
-- Locks: this worker's row.
update flowrun.workers set expires_at = now() + make_interval(secs => $2)
where id = $1
returning
    exists (select from flowrun.workers other where other.expires_at < now() and other.id <> $1) as others_expired,
    (
        select extract(epoch from run_at - clock_timestamp())::float8
        from flowrun.scheduled order by run_at limit 1
    ) as next_due
