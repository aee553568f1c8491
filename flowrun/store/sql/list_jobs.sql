-- Jobs, the newest first: read back from the newest, so a filter that few pass reads far.
--   $1 text state  $2 text type  $3 text queue  $4 text tag  $5 uuid flow, the outermost or one inside  $6, $7 timestamptz dispatched
--   from and before  $8 uuid only those older than this job  $9 integer limit; each but the last may be null
-- Index: jobs_pkey, backwards; jobs_flow with $5. Locks: none.
with recursive inside (id) as (
    select $5::uuid where $5 is not null
    union all
    select j.id from inside join flowrun.jobs j on j.flow_id = inside.id and j.kind = 1
)
select
    s.id, s.flow_id, s.name, s.type, s.queue, s.priority, s.state, s.attempt, s.optional, s.created_at, s.run_at,
    s.started_at, s.finished_at, s.worker, s.error_type, s.error, s.cause, s.progress, s.progress_message,
    s.cancel_requested, s.dispatched_by, s.schedule, s.scheduled_for,
    s.tags, s.key, s."limit", s.limit_key, s.sequence, s.fair_key
from flowrun.job_status s
where
    ($1::text is null or s.state = $1)
    and ($2::text is null or s.type = $2)
    and ($3::text is null or s.queue = $3)
    and ($4::text is null or exists (select from flowrun.jobs j where j.id = s.id and j.options -> 'tags' ? $4))
    and ($5::uuid is null or s.flow_id in (select id from inside))
    and ($6::timestamptz is null or s.created_at >= $6)
    and ($7::timestamptz is null or s.created_at < $7)
    and ($8::uuid is null or s.id < $8)
order by s.id desc
limit $9
