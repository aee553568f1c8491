-- One flow as people see it.
--   $1 uuid flow
select id, root_id, name, tags, state, created_at, finished_at, detail, dispatched_by
from flowrun.flow_status where id = $1
