-- The dead letter, what failed last first.
--   $1 uuid one job  $2 text type  $3 text queue  $4 text tag  $5 text type of the error, as stored or its last part
--   $6 uuid flow, the outermost or one inside  $7, $8 timestamptz failed from and before  $9 integer limit; each but the
--   last may be null
-- Index: finished_failed, from the newest back. Locks: none.
with recursive inside (id) as (
    select $6::uuid where $6 is not null
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
)
select
    s.connection, s.queue, s.type, s.id, s.flow_id, s.name, s.args::text as args, s.priority, s.options::text as options,
    s.attempt, s.error_type, s.message, s.detail::text as detail, s.traceback, s.worker, s.created_at, s.started_at,
    s.failed_at
from flowrun.failed_jobs s
where
    ($1::uuid is null or s.id = $1)
    and ($2::text is null or s.type = $2)
    and ($3::text is null or s.queue = $3)
    and ($4::text is null or s.options -> 'tags' ? $4)
    and ($5::text is null or s.error_type = $5 or right(s.error_type, length($5) + 1) = '.' || $5)
    and ($6::uuid is null or s.flow_id in (select id from inside))
    and ($7::timestamptz is null or s.failed_at >= $7)
    and ($8::timestamptz is null or s.failed_at < $8)
order by s.failed_at desc, s.id desc
limit $9
