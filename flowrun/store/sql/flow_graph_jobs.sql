-- All jobs of an outermost flow, its end included, for those who change it.
--   $1 uuid outermost flow
-- Result: id, kind, flow_id, name, type, optional, need (null: all edges), whether it is not cancelled with its flow,
-- whether it comes after the flow's end, whether it is a compensation, the end (or verdict) of its flow, delay,
-- outcome, attempt, whether it spoils its flow, its counters while it waits, and, where it was asked to stop and has not
-- ended, whether that does its flow no harm (null: it was not asked).
with recursive inside (id) as (
    select $1::uuid
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
),
here as (
    select j.* from inside join flowrun.jobs j on j.flow_id = inside.id
    union all
    select j.* from flowrun.jobs j where j.id = $1
)
select
    j.id, j.kind, j.flow_id, j.name, j.type, j.optional,
    case when j.options ->> 'need' ~ '^[0-9]{1,9}$' then (j.options ->> 'need')::integer end as need,
    coalesce(j.options ? 'stays', false) as stays,
    coalesce(j.options ? 'callback', false) as callback,
    coalesce(j.options ? 'compensates', false) as compensates,
    coalesce((substring(e.options ->> 'verdict' from '^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'))::uuid, e.id) as closes,
    j.delay, f.outcome, f.attempt, f.spoils is not null as spoils, b.need as waiting_need, b.open as waiting_open,
    c.harmless
from here j
left join flowrun.jobs e on e.id = j.flow_id
left join lateral (select outcome, attempt, spoils from flowrun.finished where finished.id = j.id offset 0) f on true
left join lateral (select need, open from flowrun.blocked where blocked.id = j.id offset 0) b on true
left join lateral (select harmless from flowrun.cancels where cancels.id = j.id and f.outcome is null offset 0) c on true
order by j.id
