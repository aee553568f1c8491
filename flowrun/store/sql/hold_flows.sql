-- Outermost flows that are to be removed, locked as lock_flows.sql does for all that changes one.
--   $1 uuid[] flows
-- Result: ids.
-- Index: flows_pkey. Locks: `flows` rows, skipping locked ones.
select fl.id
from unnest($1::uuid[]) as u (id)
cross join lateral (
    select id from flowrun.flows where flows.id = u.id and flows.root_id = u.id for update skip locked
) fl
