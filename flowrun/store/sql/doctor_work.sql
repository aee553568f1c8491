-- What there is to do and who does it.
-- Result: one row: workers that live, workers whose time is up, jobs they hold, jobs that nobody's lease holds a worker row
-- for, the seconds since the oldest of their times was up, jobs that are due and still scheduled, and for how many seconds.
-- Index: scheduled_run_at. Locks: none.
select
    (select count(*) from flowrun.workers where expires_at > now())::integer as alive,
    (select count(*) from flowrun.workers where expires_at <= now())::integer as gone,
    (
        select coalesce(sum(cardinality(l.jobs)), 0)::bigint
        from flowrun.leases l
        where not exists (select from flowrun.workers w where w.id = l.worker_id and w.expires_at > now())
    ) as lost,
    (select extract(epoch from now() - min(expires_at))::float8 from flowrun.workers where expires_at <= now() and expires_at > '-infinity') as since,
    (select count(*) from (select from flowrun.scheduled where run_at < now() - interval '10 seconds' limit 10000) late)::integer
        as overdue,
    (select extract(epoch from now() - min(run_at))::float8 from flowrun.scheduled where isfinite(run_at)) as overdue_since
