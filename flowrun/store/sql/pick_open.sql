-- Jobs that have not ended and pass a filter, from where they stand.
--   $1 text state  $2 text type  $3 text queue  $4 text tag  $5 uuid flow, the outermost or one inside  $6, $7 timestamptz
--   dispatched from and before; each may be null
-- Result: id, its outermost flow or null, by flow and id.
-- Locks: none.
with recursive inside (id) as (
    select $5::uuid where $5 is not null
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
),
stands as (
    -- A gate with a time limit stands in the schedule besides.
    select distinct on (id) id, state
    from (
        select id, 'waiting' as state, 1 as place from flowrun.gates
        union all
        select u.id, 'running', 2 from flowrun.leases, unnest(leases.jobs) as u (id)
        where not exists (select from flowrun.finished where finished.id = u.id)
        union all
        select id, 'ready', 3 from flowrun.ready
        union all
        select id, 'scheduled', 4 from flowrun.scheduled
        union all
        select id, 'waiting', 5 from flowrun.blocked
    ) s
    order by id, place
)
select j.id, fl.root_id
from stands
join flowrun.jobs j on j.id = stands.id and j.kind in (0, 3, 4, 5)
left join flowrun.flows fl on fl.id = j.flow_id
where
    ($1::text is null or stands.state = $1)
    and ($2::text is null or j.type = $2)
    and ($3::text is null or split_part(j.queue, chr(31), 1) = $3)
    and ($4::text is null or j.options -> 'tags' ? $4)
    and ($5::uuid is null or j.flow_id in (select id from inside))
    and ($6::timestamptz is null or j.created_at >= $6)
    and ($7::timestamptz is null or j.created_at < $7)
order by fl.root_id, j.id
