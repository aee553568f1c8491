-- The nodes of a flow, flows as nodes included: name, id, type, and whether it comes after the
-- flow's end, as callbacks and compensations do.
--   $1 uuid flow
with recursive inside (id) as (
    select $1::uuid
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
)
select j.name, j.id, j.type, coalesce(j.options ?| array['callback', 'compensates'], false) as after_end
from inside join flowrun.jobs j on j.flow_id = inside.id
where j.kind <> 2
order by j.id
