-- The results of a flow's last nodes: name, type, result.
--   $1 uuid flow
select j.name, j.type, f.result
from flowrun.edges e
join flowrun.jobs j on j.id = e.parent_id
left join flowrun.finished f on f.id = j.id and f.outcome = 1
where e.child_id = $1 and e.condition = 2
order by j.id
