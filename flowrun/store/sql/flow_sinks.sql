-- The results of a flow's last nodes: id, name, type, result.
--   $1 uuid flow
-- The last nodes are recorded with the flow's end.
select j.id, j.name, j.type, f.result
from flowrun.jobs flow_end
cross join lateral unnest(flow_end.parents) with ordinality as u (id, place)
cross join lateral (select id, name, type from flowrun.jobs where jobs.id = u.id offset 0) j
left join flowrun.finished f on f.id = j.id and f.outcome = 1
where flow_end.id = $1
order by u.place
