-- Dispatch jobs because others have failed; each carries what is known of the one that did.
--   $1 uuid[] new id  $2 uuid[] job that failed  $3 text[] type  $4 text[] queue  $5 smallint[] priority
--   $6 text[] args (JSON)  $7 text[] options (JSON)  $8 float8[] delay
-- Result: note (3: its queue has something ready, 4: something is scheduled), queue.
-- Locks: only what it inserts.
with new as (
    insert into flowrun.jobs (id, queue, type, args, priority, delay, options)
    select
        u.id, u.queue, u.type, u.args::jsonb, u.priority, u.delay,
        coalesce(u.options::jsonb, '{}') || jsonb_build_object(
            'dispatched_by', u.failed_id,
            'failure', jsonb_build_object(
                'job_id', j.id, 'job_type', j.type, 'queue', split_part(j.queue, chr(31), 1), 'name', j.name,
                'flow_id', j.flow_id, 'priority', j.priority, 'tags', j.options -> 'tags', 'args', j.args,
                'attempt', f.attempt, 'type', f.error ->> 'type', 'message', f.error ->> 'message',
                'traceback', a.traceback, 'detail', a.detail, 'failed_at', f.finished_at
            )
        )
    from unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::smallint[], $6::text[], $7::text[], $8::float8[]
    ) as u (id, failed_id, type, queue, priority, args, options, delay)
    cross join lateral (
        select id, type, queue, name, flow_id, priority, options, args from flowrun.jobs where jobs.id = u.failed_id offset 0
    ) j
    cross join lateral (
        select attempt, error, finished_at from flowrun.finished where finished.id = u.failed_id offset 0
    ) f
    left join lateral (
        select traceback, detail from flowrun.attempts
        where attempts.job_id = u.failed_id and attempts.attempt = f.attempt
        offset 0
    ) a on true
    returning id, queue, type, priority, delay
),
timed as (
    insert into flowrun.scheduled (id, run_at)
    select id, now() + make_interval(secs => case when delay > 1e10 then 1e10 else delay end) from new where delay is not null
),
free as (
    insert into flowrun.ready (queue, priority, id, type)
    select queue, priority, id, type from new where delay is null
)
select case when delay is null then 3 else 4 end, queue from new
