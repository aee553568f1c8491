-- Keys that are held no more, or whose job was removed, given to another: if nobody else was faster.
--   $1 text[] scope  $2 text[] key  $3 uuid[] who had it  $4 uuid[] who gets it  $5 float8[] seconds, as in take_keys
-- Result: scope and key of those that were given.
-- Index: keys_pkey. Locks: `keys` rows in order of scope and key. That the id is compared again after a wait is what
-- keeps two from taking the same key.
update flowrun.keys
set id = u.id, expires_at = clock_timestamp() + make_interval(secs => u.ttl)
from (
    select * from unnest($1::text[], $2::text[], $3::uuid[], $4::uuid[], $5::float8[]) as u (scope, key, old, id, ttl)
    order by scope, key
) u
where keys.scope = u.scope and keys.key = u.key and keys.id = u.old
returning keys.scope, keys.key
