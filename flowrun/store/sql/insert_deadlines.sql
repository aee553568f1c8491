-- Moments by which jobs must have started and flows must have ended.
--   $1 uuid[] job or flow  $2 smallint[] kind  $3 float8[] seconds from now  $4 timestamptz[] or a moment
-- Locks: only what it inserts. Harmless when sent again.
insert into flowrun.deadlines (id, kind, due_at)
select u.id, u.kind, coalesce(u.due_at, now() + make_interval(secs => case when u.delay > 1e10 then 1e10 else u.delay end))
from unnest($1::uuid[], $2::smallint[], $3::float8[], $4::timestamptz[]) as u (id, kind, delay, due_at)
on conflict (id) do nothing
