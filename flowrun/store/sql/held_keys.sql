-- Who has some keys, and whether they are still held: until they expire, or, without an expiry, while the job is stored
-- (a flow is stored while the job that ends it is, which has the flow's id).
--   $1 text[] scope  $2 text[] key
-- Result: scope, key, id, held.
-- Index: keys_pkey, jobs_pkey. Locks: none.
select
    u.scope,
    u.key,
    k.id,
    case
        when k.expires_at is null then exists (select from flowrun.jobs where jobs.id = k.id)
        else k.expires_at > clock_timestamp()
    end as held
from unnest($1::text[], $2::text[]) as u (scope, key)
cross join lateral (
    select id, expires_at from flowrun.keys where keys.scope = u.scope and keys.key = u.key offset 0
) k
