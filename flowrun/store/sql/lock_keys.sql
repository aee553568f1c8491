-- Keys whose jobs or flows are to be replaced, locked: of several who want to, one after the other does.
--   $1 text[] scope  $2 text[] key
-- Result: scope, key, id.
-- Index: keys_pkey. Locks: `keys` rows in order of scope and key. Who only looks, or inserts the same key, does not wait.
select u.scope, u.key, k.id
from (select scope, key from unnest($1::text[], $2::text[]) as u (scope, key) order by scope, key) u
cross join lateral (
    select id from flowrun.keys where keys.scope = u.scope and keys.key = u.key for update
) k
