-- How the compensations of flows went.
--   $1 uuid[] outermost flows
-- Result: flow, 'compensated' or 'compensation failed'; no row for a flow none of whose compensations ran.
with recursive inside (root, id) as (
    select u.id, u.id from unnest($1::uuid[]) as u (id)
    union all
    select inside.root, j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
)
select inside.root, case when bool_or(f.outcome <> 1) then 'compensation failed' else 'compensated' end
from inside
join flowrun.jobs j on j.flow_id = inside.id and j.options ? 'compensates'
join flowrun.finished f on f.id = j.id and f.outcome in (1, 2)
group by inside.root
