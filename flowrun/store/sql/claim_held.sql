-- Take jobs into one lease out of places where nobody has to be asked: of lanes that only take turns, and of places whose
-- slots this worker holds already. It runs no more of them at once than it holds slots, however many it takes.
--   $1 uuid worker  $2 bigint lease number  $3 text[] types this worker can run
--   $4 text[] places  $5 smallint[] priority and $6 uuid[] id of the low-water mark  $7 integer[] how many, place by place
--   $8 integer changes of queues the worker knows of
--   $9 text[] names of slots, $10 integer[] how many of each it holds, $11 text[] for which place: a name once for each
-- Result: the jobs' definitions, most urgent first within each place; none when the worker was given up, or when a queue
-- was changed and the worker does not know yet.
-- The slots are held by an older lease, which the worker does not let go before it has this one's answer (worker/gates.py):
-- so whoever counts sees one of the two, and neither this nor the settle takes the lock of claims under limits.
-- Index and locks as in claim.sql.
with taken as (
    delete from flowrun.ready
    where ctid = any(array(
        select r.ctid
        from unnest($4::text[], $5::smallint[], $6::uuid[], $7::integer[]) as p (place, priority, id, most)
        cross join lateral (
            select ready.ctid
            from flowrun.ready
            where ready.queue = p.place and (ready.priority, ready.id) > (p.priority, p.id) and ready.type = any($3)
            order by ready.priority, ready.id
            limit p.most
            for update skip locked
        ) r
        where exists (select from flowrun.workers where id = $1 and changes = $8)
    ))
    returning ready.id, ready.queue, ready.priority, (least(ready.attempt, 32766::smallint) + 1)::smallint as attempt
),
lease as (
    insert into flowrun.leases (worker_id, n, claimed_at, jobs, attempts)
    select $1, $2, clock_timestamp(), array_agg(id), array_agg(attempt) from taken
    having count(*) > 0
),
slots as (
    insert into flowrun.slots (name, worker_id, n, jobs, most)
    select name, $1, $2, '{}', max(most) from unnest($9::text[], $10::integer[], $11::text[]) as s (name, most, place)
    where (place in (select queue from taken)) is true
    group by name
)
select
    j.id, taken.attempt, j.flow_id, j.kind, j.name, j.queue, j.type, j.args, j.sources, j.bindings, j.priority, j.options
from taken
cross join lateral (select * from flowrun.jobs where jobs.id = taken.id offset 0) j
order by taken.queue, taken.priority, taken.id
