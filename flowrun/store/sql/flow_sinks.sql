-- The results of a flow's last nodes: name, type, result.
--   $1 uuid flow
-- The end of a flow waits for more than its last nodes (for joins, and for nodes whose children may be decided before
-- them): a last node is one that nothing waits for but the end, and callbacks, which are what waits for the end of its
-- own flow.
select j.name, j.type, f.result
from flowrun.edges e
join flowrun.jobs j on j.id = e.parent_id
left join flowrun.finished f on f.id = j.id and f.outcome = 1
where e.child_id = $1 and e.condition = 2 and j.kind <> 2
and not exists (
    select from flowrun.edges other
    join flowrun.jobs child on child.id = other.child_id
    where other.parent_id = e.parent_id and other.child_id <> $1
    and not exists (
        select from flowrun.edges ended where ended.parent_id = child.flow_id and ended.child_id = child.id
    )
)
order by j.id
