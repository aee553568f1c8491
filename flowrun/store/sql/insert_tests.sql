-- Edges that ask more than a condition.
--   $1 uuid[] parent  $2 uuid[] child  $3 smallint[] number  $4 text[] test (JSON)
-- Locks: only what it inserts. Harmless when sent again.
insert into flowrun.edges (parent_id, child_id, condition, test)
select u.parent_id, u.child_id, u.condition, u.test::jsonb
from unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::text[]) as u (parent_id, child_id, condition, test)
on conflict (parent_id, child_id, condition) do nothing
