-- What is known of a queue, written where it differs.
--   $1 text queue  $2 integer concurrency or null  $3 integer and $4 float8 jobs and seconds of its rate, or null
--   $5 boolean paused; null: as it is (a new one is not)  $6 boolean whether one that is there stays as it is anyway
-- Result: one row if something was changed.
-- Locks: the row of the queue.
insert into flowrun.queues (name, concurrency, rate_jobs, rate_seconds, paused)
values ($1, $2, $3, $4, coalesce($5::boolean, false))
on conflict (name) do update
set
    concurrency = excluded.concurrency, rate_jobs = excluded.rate_jobs, rate_seconds = excluded.rate_seconds,
    paused = case when $6 or $5 is null then queues.paused else excluded.paused end, changed_at = now()
where
    (queues.concurrency, queues.rate_jobs, queues.rate_seconds, queues.paused)
    is distinct from (
        excluded.concurrency, excluded.rate_jobs, excluded.rate_seconds,
        case when $6 or $5 is null then queues.paused else excluded.paused end
    )
returning name
