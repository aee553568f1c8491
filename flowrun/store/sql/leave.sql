-- Jobs leave their lease by another way than settle.sql: failed, retried, snoozed, handed back. This is the fence of the
-- slow path: only a job that is still in its lease, at that attempt, comes out.
--   $1 uuid worker  $2 bigint[] leases concerned  $3 bigint[] of these, the ones with no job left
--   $4 uuid[] job  $5 bigint[] its lease  $6 smallint[] its attempt
-- Result: id, attempt, claimed_at of the jobs that were this worker's.
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
    join unnest($4::uuid[], $5::bigint[], $6::smallint[]) as d (id, n, attempt)
        on d.id = u.id and d.n = held.n and d.attempt = u.attempt
    where not exists (select from flowrun.finished where finished.id = u.id)
),
rest as (
    update flowrun.leases set jobs = r.jobs, attempts = r.attempts
    from (
        select
            held.n,
            coalesce(array_agg(u.id) filter (where leaving.id is null), '{}') as jobs,
            coalesce(array_agg(u.attempt) filter (where leaving.id is null), '{}') as attempts
        from held
        cross join lateral unnest(held.jobs, held.attempts) as u (id, attempt)
        left join leaving on leaving.n = held.n and leaving.id = u.id
        where held.n <> all($3)
        group by held.n
    ) r
    where leases.worker_id = $1 and leases.n = r.n
),
spent as (
    delete from flowrun.leases where worker_id = $1 and n = any($3)
)
select id, attempt, claimed_at from leaving
