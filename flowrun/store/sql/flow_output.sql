-- The type of the node whose result is a flow's.
--   $1 uuid flow
select output.type
from flowrun.jobs flow_end
join flowrun.jobs output on output.id = flow_end.sources[1]
where flow_end.id = $1 and cardinality(flow_end.sources) = 1
