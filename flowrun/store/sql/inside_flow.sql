-- All jobs of a flow and of the flows inside it, its own end left out.
--   $1 uuid flow
-- Result: id, kind, flow_id, name, whether it is not cancelled with its flow, whether it comes after the flow's end (as
-- callbacks and compensations do), outcome (null: it has not ended).
with recursive inside (id) as (
    select $1::uuid
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
)
select
    j.id, j.kind, j.flow_id, j.name,
    coalesce(j.options ? 'stays', false) as stays,
    coalesce(j.options ?| array['callback', 'compensates'], false) as after_end,
    f.outcome
from inside
join flowrun.jobs j on j.flow_id = inside.id
left join lateral (select outcome from flowrun.finished where finished.id = j.id offset 0) f on true
order by j.id
