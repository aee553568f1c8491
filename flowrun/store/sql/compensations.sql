-- What would undo the nodes of a flow.
--   $1 uuid outermost flow
with recursive inside (id) as (
    select $1::uuid
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
)
select j.id from inside join flowrun.jobs j on j.flow_id = inside.id where j.options ? 'compensates'
