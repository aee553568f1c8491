-- What jobs need besides their own rows: results of parents, and how flows went.
--   $1 uuid[] parents whose result is wanted  $2 integer[] by which of the jobs (1 for the first)
--   $3 uuid[] the jobs  $4 bigint[] their leases  $5 uuid worker
--   $6 uuid[] flows whose outcome is wanted
-- Result: (0, parent, outcome, result, job's number) and (1, flow, worst outcome of a job that spoils it, null, null); 1
-- (succeeded) for a flow that was cancelled when the last of its jobs were about to succeed, and did.
-- A result counts if it was there when the job's first attempt was claimed, so that a retry sees the same input: a job
-- behind an any_of is released before its other parents have ended.
-- Its own statement, so that it has a snapshot in which every parent of a released child is finished.
with bounds as materialized (
    select
        array_agg(
            coalesce(
                (
                    select min(attempts.started_at)
                    from flowrun.attempts
                    cross join lateral (
                        select coalesce((options ->> 'before')::smallint, 0) as before
                        from flowrun.jobs where jobs.id = j.id offset 0
                    ) again
                    where attempts.job_id = j.id and attempts.attempt > again.before
                ),
                (select claimed_at from flowrun.leases where worker_id = $5 and n = j.lease),
                'infinity'
            ) order by j.place
        ) as moments
    from unnest($3::uuid[], $4::bigint[]) with ordinality as j (id, lease, place)
)
select 0 as kind, f.id, f.outcome, f.result, u.place
from unnest($1::uuid[], $2::integer[]) as u (id, place)
cross join lateral (
    select id, outcome, result, finished_at from flowrun.finished where finished.id = u.id offset 0
) f
where f.finished_at <= (select bounds.moments[u.place] from bounds)
union all
select 1, u.id, s.outcome, null, null
from unnest($6::uuid[]) as u (id)
cross join lateral (
    select coalesce(
        (select min(outcome) from flowrun.finished where finished.spoils = u.id),
        (select 1 from flowrun.cancels where cancels.id = u.id)
    ) as outcome
) s
where s.outcome is not null
