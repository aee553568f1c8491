-- A plan, written by a function of the schema: for roles that may write no table themselves (see granted.py).
--   $1 text the plan (JSON)
--   $2 text[] channels and $3 text[] payloads to tell in the same commit, where that is asked for
-- Result: id of a job or flow that was not written because its key is held, and of whom has the key.
-- Locks: see the function (migration 0010).
with told as materialized (
    select pg_notify(u.channel, u.payload) from unnest($2::text[], $3::text[]) as u (channel, payload)
)
select wanted, holder from flowrun.dispatch($1::text::json) where (select count(*) from told) >= 0
