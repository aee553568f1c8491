-- Keys that nobody has, given to jobs and flows that are about to be written in the same transaction.
--   $1 text[] scope  $2 text[] key  $3 uuid[] job or flow  $4 float8[] seconds the key is held, or null: while it is stored
-- Result: scope and key of those that were free.
-- Index: keys_pkey. Locks: what it inserts, in order of scope and key; waits for whoever is inserting the same one, until
-- that transaction's end. Never an error that would abort the caller's transaction. Whether a key that is there is still
-- held is looked up in a statement of its own, which sees what this one waited for: `do update ... where` would decide
-- by the snapshot from before the wait, and take the key from a job it cannot see.
insert into flowrun.keys (scope, key, id, expires_at)
select u.scope, u.key, u.id, clock_timestamp() + make_interval(secs => u.ttl)
from unnest($1::text[], $2::text[], $3::uuid[], $4::float8[]) as u (scope, key, id, ttl)
order by u.scope, u.key
on conflict (scope, key) do nothing
returning scope, key
