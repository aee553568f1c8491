-- The outermost flows of some flows, locked: what changes a flow's shape (growth, cancelling, signals, operators) does
-- so one at a time. Taken before any lease, any job's place, any counter. Plain settling never takes it.
--   $1 uuid[] flows
-- Result: flow, its outermost flow.
-- Locks: `flows` rows by id.
with roots as (
    select f.root_id from unnest($1::uuid[]) as u (id)
    cross join lateral (select root_id from flowrun.flows where flows.id = u.id offset 0) f
),
held as materialized (
    select id from flowrun.flows where id in (select root_id from roots) order by id for no key update
)
select f.id, f.root_id
from unnest($1::uuid[]) as u (id)
cross join lateral (select id, root_id from flowrun.flows where flows.id = u.id offset 0) f
where exists (select from held where held.id = f.root_id)
