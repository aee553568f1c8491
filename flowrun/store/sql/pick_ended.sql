-- Handlers' jobs that failed (and were not discarded) or were cancelled and pass a filter, those that ended last first.
--   $1 text state, failed or cancelled  $2 text type  $3 text queue  $4 text tag  $5 text type of the error, as stored or
--   its last part  $6 uuid flow, the outermost or one inside  $7, $8 timestamptz dispatched from and before  $9, $10
--   timestamptz ended from and before  $11 integer limit; each but the first and the last may be null
-- Result: id, its outermost flow or null, type.
-- Index: finished_failed for those that failed; those that were cancelled have none. Locks: none.
with recursive inside (id) as (
    select $6::uuid where $6 is not null
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
),
ended as (
    select id, finished_at, error from flowrun.finished
    where $1 = 'failed' and outcome = 2 and (error ->> 'discarded') is null
    union all
    select id, finished_at, error from flowrun.finished where $1 = 'cancelled' and outcome = 3
)
select j.id, fl.root_id, j.type
from ended
join flowrun.jobs j on j.id = ended.id and j.kind = 0
left join flowrun.flows fl on fl.id = j.flow_id
where
    ($2::text is null or j.type = $2)
    and ($3::text is null or split_part(j.queue, chr(31), 1) = $3)
    and ($4::text is null or j.options -> 'tags' ? $4)
    and ($5::text is null or ended.error ->> 'type' = $5 or right(ended.error ->> 'type', length($5) + 1) = '.' || $5)
    and ($6::uuid is null or j.flow_id in (select id from inside))
    and ($7::timestamptz is null or j.created_at >= $7)
    and ($8::timestamptz is null or j.created_at < $8)
    and ($9::timestamptz is null or ended.finished_at >= $9)
    and ($10::timestamptz is null or ended.finished_at < $10)
order by ended.finished_at desc, ended.id desc
limit $11
