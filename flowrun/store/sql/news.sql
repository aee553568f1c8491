-- What a worker that lives has to know.
--   $1 uuid worker
-- Result: whether there is somebody to rescue (as in expired_worker.sql), the seconds until the next scheduled job or
-- deadline is due, which of this worker's jobs were asked to stop, and the seconds until the next tick of a schedule (0 if
-- one waited for a run that has ended).
-- Index: leases_pkey, one step a worker; scheduled_run_at, deadlines_due_at, schedules_next_at, schedules_waits_for.
-- Locks: none.
with recursive holder (id) as (
    (select worker_id from flowrun.leases order by worker_id limit 1)
    union all
    select (select worker_id from flowrun.leases where worker_id > holder.id order by worker_id limit 1)
    from holder where holder.id is not null
)
select
    exists (select from flowrun.workers other where other.expires_at < now() and other.id <> $1)
    or exists (
        select from holder
        where holder.id is not null and not exists (select from flowrun.workers owner where owner.id = holder.id)
    ) as others_expired,
    (
        select extract(epoch from least(
            (select greatest(run_at, '1970-01-01') from flowrun.scheduled where run_at < 'infinity' order by run_at limit 1),
            (select greatest(due_at, '1970-01-01') from flowrun.deadlines where due_at < 'infinity' order by due_at limit 1)
        ) - clock_timestamp())::float8
    ) as next_due,
    (
        select array_agg(asked.id)
        from flowrun.cancels asked
        where exists (
            select from flowrun.leases where leases.worker_id = $1 and leases.jobs @> array[asked.id]
        )
    ) as cancelled,
    case
        when exists (
            select from flowrun.schedules held
            where
                held.waits_for is not null and not held.paused
                and (
                    select true from flowrun.jobs j
                    where j.id = held.waits_for and (select true from flowrun.finished f where f.id = j.id) is null
                ) is null
        ) then 0
        else (
            select extract(epoch from greatest(next_at, '1970-01-01') - clock_timestamp())::float8 from flowrun.schedules
            where next_at < 'infinity' and waits_for is null and not paused
            order by next_at
            limit 1
        )
    end as next_tick
