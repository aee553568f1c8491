-- Single jobs that are to be removed, locked: who runs one again, resolves or skips it holds the same row. One that is
-- held by somebody else, or has ended anew meanwhile, is left out; so is one whose place in a lease is not cleared yet.
--   $1 uuid[] job  $2 timestamptz[] when it was seen to have ended
-- Result: ids.
-- Index: finished_pkey. Locks: `finished` rows, skipping locked ones.
with held as materialized (
    select f.id
    from unnest($1::uuid[], $2::timestamptz[]) as u (id, finished_at)
    cross join lateral (
        select id from flowrun.finished where finished.id = u.id and finished.finished_at = u.finished_at
        for update skip locked
    ) f
)
select id from held where id not in (select unnest(jobs) from flowrun.leases)
