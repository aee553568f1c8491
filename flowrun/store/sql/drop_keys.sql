-- Keys that this transaction has given to jobs which it does not write after all.
--   $1 text[] scope  $2 text[] key  $3 uuid[] who got it
-- Index: keys_pkey. Locks: rows that this transaction has inserted, so nobody is waited for.
delete from flowrun.keys
using unnest($1::text[], $2::text[], $3::uuid[]) as u (scope, key, id)
where keys.scope = u.scope and keys.key = u.key and keys.id = u.id
