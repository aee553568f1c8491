-- Where schedules stand, and who could run what they dispatch.
--   $1 text key; null: all  $2 timestamptz the moment it is; null: by the database's clock
-- Result: key, paused, next_at, waits_for, overlap, seconds by which the next tick is late, workers that live, and the jobs
-- that none of them would take: a JSON array of [type, queue].
-- Index: schedules_pkey. Locks: none.
select
    s.key,
    s.paused,
    s.next_at,
    s.waits_for,
    s.overlap,
    case when isfinite(s.next_at) then extract(epoch from coalesce($2::timestamptz, now()) - s.next_at)::float8 end as late,
    (select count(*) from flowrun.workers where expires_at > now()) as alive,
    (
        select coalesce(jsonb_agg(distinct jsonb_build_array(job ->> 'type', place.queue)), '[]')::text
        from jsonb_array_elements(case when jsonb_typeof(s.template -> 'jobs') = 'array' then s.template -> 'jobs' end) as job
        cross join lateral (select split_part(coalesce(job ->> 'queue', 'default'), chr(31), 1) as queue) place
        where
            coalesce(job ->> 'kind', '0') = '0'
            and not exists (
                select from flowrun.workers
                where expires_at > now() and place.queue = any(queues) and job ->> 'type' = any(types)
            )
    ) as unserved
from flowrun.schedules s
where $1::text is null or s.key = $1
order by s.key
