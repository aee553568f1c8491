-- How the compensations of flows went.
--   $1 uuid[] outermost flows
-- Result: flow, 'compensated', 'compensation failed', or 'compensation cancelled' where some were left out; no row for a
-- flow none of whose compensations ran.
with recursive inside (root, id) as (
    select u.id, u.id from unnest($1::uuid[]) as u (id)
    union all
    select inside.root, j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
)
select
    inside.root,
    case
        when bool_or(f.outcome = 2) then 'compensation failed'
        when bool_or(f.outcome = 3) then 'compensation cancelled'
        else 'compensated'
    end
from inside
join flowrun.jobs j on j.flow_id = inside.id and j.options ? 'compensates'
join flowrun.finished f on f.id = j.id and f.outcome in (1, 2, 3)
group by inside.root
having bool_or(f.outcome in (1, 2) or f.attempt > 0)
