-- Of some jobs and flows that are to be removed, those whose keys nobody is about to take over. Never waits: a dispatch
-- that holds one key of theirs may be waiting for another.
--   $1 uuid[] jobs and flows
-- Result: ids.
-- Index: keys_id. Locks: `keys` rows, skipping locked ones.
with held as materialized (
    select k.id
    from unnest($1::uuid[]) as u (id)
    cross join lateral (select id from flowrun.keys where keys.id = u.id for update skip locked) k
)
select u.id
from unnest($1::uuid[]) as u (id)
cross join lateral (select count(*) as n from flowrun.keys where keys.id = u.id offset 0) k
where k.n = 0 or k.n = (select count(*) from held where held.id = u.id)
