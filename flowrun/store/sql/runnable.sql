-- What runs or could run right now, by type.
--   $1 text[] types that can be run  $2 text[] queues that are worked
-- Result: state (0 running, 1 ready, 2 due), type, count.
-- Index: none: it reads `ready`, `leases` and what is due of `scheduled`. For tests.
-- Locks: none.
select 0 as state, j.type, count(*)
from flowrun.leases
cross join lateral unnest(leases.jobs) as u (id)
join flowrun.jobs j on j.id = u.id
where not exists (select from flowrun.finished where finished.id = u.id)
group by j.type
union all
select 1, r.type, count(*)
from flowrun.ready r
where
    r.type = any($1) and split_part(r.queue, chr(31), 1) = any($2)
    and not exists (select from flowrun.queues q where q.name = split_part(r.queue, chr(31), 1) and q.paused)
    and not exists (select from flowrun.types t where t.name = r.type and t.paused)
group by r.type
union all
select 2, j.type, count(*)
from flowrun.scheduled s
join flowrun.jobs j on j.id = s.id
where s.run_at <= clock_timestamp()
group by j.type
order by 1, 2
