-- Take jobs out of the leases they are in: what their workers say of them comes late. For flowrun's own jobs, which are
-- about to decide what must be decided again.
--   $1 uuid[] jobs
-- Locks: the leases, which are held already (hold_leases.sql).
update flowrun.leases
set (jobs, attempts) = (
    select coalesce(array_agg(u.id order by u.place), '{}'), coalesce(array_agg(u.attempt order by u.place), '{}')
    from unnest(leases.jobs, leases.attempts) with ordinality as u (id, attempt, place)
    where (u.id = any($1)) is not true
)
where jobs && $1::uuid[]
