-- The gates of a flow, open or not: what signal they wait for, and how.
--   $1 uuid outermost flow
with recursive inside (id) as (
    select $1::uuid
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
)
select j.args ->> 'signal' as signal, j.args::text as args, j.id
from inside join flowrun.jobs j on j.flow_id = inside.id
where j.kind = 3
order by j.id
