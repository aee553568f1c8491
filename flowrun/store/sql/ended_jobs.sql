-- Handlers' jobs and outermost flows that have ended, for those who are told of them.
--   $1 uuid[] jobs
select
    j.id, j.kind, j.type, split_part(j.queue, chr(31), 1) as queue, j.name, j.flow_id, j.priority,
    (j.options -> 'tags')::text as tags, j.args::text as args, f.outcome, f.attempt, f.error::text as error,
    j.options -> 'failure' ->> 'job_id' as failed, f.finished_at, a.traceback, a.detail::text as detail, fl.name as flow_name
from unnest($1::uuid[]) as u (id)
cross join lateral (
    select id, kind, type, queue, name, flow_id, priority, options, args from flowrun.jobs where jobs.id = u.id offset 0
) j
cross join lateral (
    select outcome, attempt, error, finished_at from flowrun.finished where finished.id = u.id offset 0
) f
left join lateral (
    select traceback, detail from flowrun.attempts
    where attempts.job_id = u.id and attempts.attempt = f.attempt and f.outcome = 2
    offset 0
) a on true
left join lateral (select name from flowrun.flows where flows.id = u.id and root_id = u.id offset 0) fl on j.kind = 1
where j.kind = 0 or fl.name is not null
