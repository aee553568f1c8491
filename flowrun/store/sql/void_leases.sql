-- No claim and no settle will write a lease under these numbers any more. For statements that were sent and never
-- answered: one may still be under way, or not even have begun. Either this waits for its row, or it meets this one and
-- fails. (Without: taken back too early, its jobs stayed in a lease that nobody knew until the worker ended.)
-- Those of an hour ago are removed: no statement is under way for so long (statement_timeout), a worker lives for months.
--   $1 uuid worker  $2 bigint[] lease numbers
-- Locks: what it inserts; a statement that is writing such a lease right now is waited for. What it removes, nobody else
-- touches but the rescue of a worker whose time is over.
with removed as (
    delete from flowrun.leases
    where worker_id = $1 and jobs = '{}' and claimed_at < now() - interval '1 hour' and n <> all($2)
)
insert into flowrun.leases (worker_id, n, jobs, attempts)
select $1, u.n, '{}', '{}' from unnest($2::bigint[]) as u (n) order by u.n
on conflict (worker_id, n) do nothing
