-- Workers that live.
-- Result: id, name, queues, types, concurrency, started_at, how many jobs they hold, what troubles them (JSON).
-- Index: leases_pkey. Locks: none.
select
    w.id, w.name, w.queues, w.types, w.concurrency, w.started_at,
    (select coalesce(sum(cardinality(jobs)), 0)::bigint from flowrun.leases where worker_id = w.id) as jobs,
    w.trouble
from flowrun.workers w
where w.expires_at > now()
order by w.started_at, w.id
