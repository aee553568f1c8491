-- The nodes of a flow, those of flows inside included: name, id, type.
--   $1 uuid flow
-- Of jobs it reads what a dispatcher's role may see.
with recursive inside (id) as (
    select $1::uuid
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
)
select j.name, j.id, j.type
from inside join flowrun.jobs j on j.flow_id = inside.id
where j.kind <> 2
order by j.id
