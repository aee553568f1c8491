-- A flow inside another counts its jobs, too, and those of the flows inside it.
create or replace view flowrun.flow_status as
select
    fl.id,
    fl.root_id,
    fl.name,
    fl.tags,
    coalesce((array['succeeded', 'failed', 'cancelled', 'skipped'])[f.outcome], 'running') as state,
    fl.created_at,
    f.finished_at,
    f.error ->> 'message' as error,
    f.error ->> 'detail' as detail,
    fl.dispatched_by,
    case
        when fl.id = fl.root_id then (
            select count(*)
            from flowrun.jobs j
            join flowrun.flows inside on inside.id = j.flow_id
            where inside.root_id = fl.id and j.kind = 0
        )
        else (
            with recursive inside (id) as (
                select fl.id
                union all
                select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
            )
            select count(*) from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 0
        )
    end as jobs
from flowrun.flows fl
left join flowrun.finished f on f.id = fl.id;
