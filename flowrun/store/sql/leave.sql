-- Jobs leave their lease by another way than settle.sql: failed, retried, snoozed, handed back. This is the fence of the
-- slow path: only a job that is still in its lease, at that attempt, comes out.
--   $1 uuid worker  $2 bigint[] leases concerned  $3 bigint[] of these, the ones with no job left
--   $4 uuid[] job  $5 bigint[] its lease  $6 smallint[] its attempt
-- Result: id, lease, claimed_at of the jobs that were this worker's. One that has an outcome already may be among
-- them, where this waited for the settle that wrote it; what follows (again.sql, finish.sql) sees that outcome.
-- Index: leases_pkey, finished_pkey. Hashed look-ups where joins would do: with statistics of single-job leases the
-- planner chose nested loops over both lists, 1.1 s for 2,000 jobs.
-- Locks: this worker's leases, by number.
with held as materialized (
    select n, claimed_at, jobs, attempts from flowrun.leases
    where worker_id = $1 and n = any($2)
    order by n
    for update
),
leaving as materialized (
    select held.n, held.claimed_at, u.id, u.attempt
    from held
    cross join lateral unnest(held.jobs, held.attempts) as u (id, attempt)
    left join lateral (select id from flowrun.finished where finished.id = u.id offset 0) f on true
    where
        ((u.id, held.n, u.attempt) in (
            select id, n, attempt from unnest($4::uuid[], $5::bigint[], $6::smallint[]) as d (id, n, attempt)
        )) is true
        and f.id is null
),
rest as (
    update flowrun.leases
    set (jobs, attempts) = (
        select coalesce(array_agg(u.id), '{}'), coalesce(array_agg(u.attempt), '{}')
        from unnest(leases.jobs, leases.attempts) as u (id, attempt)
        where ((leases.n, u.id) in (select n, id from leaving)) is not true
    )
    where worker_id = $1 and n = any($2) and n <> all($3)
),
spent as (
    delete from flowrun.leases where worker_id = $1 and n = any($3)
)
select id, n, claimed_at from leaving
