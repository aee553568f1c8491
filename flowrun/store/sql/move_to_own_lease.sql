-- Move a job of a shared lease into one of its own, so that a long settle of it locks nobody else's.
--   $1 uuid worker  $2 bigint its lease  $3 uuid job  $4 smallint attempt  $5 bigint number of the lease of its own
--   $6 boolean its lease takes up limits
-- Result: whether the job stands in that lease at that attempt. Sent again after an ambiguous commit it says the same;
-- it may say false once, where it waited for the statement sent before: the snapshot is from before that one's commit.
-- What is known by the number of the lease goes along: since when it runs, whether edges of it were added, that its handler
-- was called (`begun`), and the slots of limits that its worker holds. Of a limit that counts jobs (`most` is null) the
-- lease of its own has one and the other one less; else both say the same, of which the most counts.
-- Index: leases_pkey, begun_pkey. `slots` is read by worker and number, only under limits: a row for each lease there.
-- Locks, in this order: the lease; the job's row of `begun`, which only the holder of the lease touches.
with held as materialized (
    select claimed_at, touched from flowrun.leases
    where worker_id = $1 and n = $2 and attempts[array_position(jobs, $3)] = $4
    for update
),
own as (
    insert into flowrun.leases (worker_id, n, claimed_at, jobs, attempts, touched)
    select $1, $5, claimed_at, array[$3], array[$4], touched from held
),
rest as (
    update flowrun.leases
    set (jobs, attempts) = (
        select coalesce(array_agg(u.id), '{}'), coalesce(array_agg(u.attempt), '{}')
        from unnest(leases.jobs, leases.attempts) as u (id, attempt)
        where u.id <> $3
    )
    where worker_id = $1 and n = $2 and exists (select from held)
),
began as (
    update flowrun.begun set n = $5 where job_id = $3 and worker_id = $1 and n = $2 and exists (select from held)
),
slots as (
    insert into flowrun.slots (name, worker_id, n, jobs, most)
    select s.name, $1, $5, case when s.most is null then array[$3] else '{}' end, s.most
    from flowrun.slots s
    where $6 and s.worker_id = $1 and s.n = $2 and exists (select from held)
)
select exists (select from held) or exists (
    select from flowrun.leases where worker_id = $1 and n = $5 and attempts[array_position(jobs, $3)] = $4
)
