-- Jobs that no worker that lives would take: of a queue nobody serves, or of a type nobody has a handler for.
--   $1 integer how many jobs to look at, in the order of their queues
-- Result: queue, type, jobs, whether the queue is served, whether the type is known; at most 20 rows.
-- Index: ready_pkey. Locks: none.
select found.queue, found.type, found.jobs, served.is as served, known.is as known
from (
    select split_part(looked.queue, chr(31), 1) as queue, looked.type, count(*) as jobs
    from (select queue, type, id from flowrun.ready order by queue, priority, id limit $1) looked
    group by 1, 2
) found
cross join lateral (
    select exists (select from flowrun.workers where expires_at > now() and found.queue = any(queues)) as is
) served
cross join lateral (
    select exists (select from flowrun.workers where expires_at > now() and found.type = any(types)) as is
) known
where
    found.queue <> 'flowrun'
    and not exists (
        select from flowrun.workers
        where expires_at > now() and found.queue = any(queues) and found.type = any(types)
    )
order by found.jobs desc, found.queue, found.type
limit 20
