-- Schedules whose next tick is due, or whose run before has ended, locked.
--   $1 timestamptz the moment it is; null: by the database's clock  $2 integer limit
--   $3 text[] schedules that this process cannot read
-- Result: the schedule, and the moment.
-- Index: schedules_next_at, schedules_waits_for. Locks: `schedules` rows, skipping locked ones. What was changed since the
-- snapshot is looked at again after the lock, so no tick is taken twice; whether a run has ended is for a second statement
-- to say, whose snapshot is from after the locks. (As `not exists` the look-ups become a join, which reads all of `jobs`
-- where its statistics are those of an empty table.)
select
    s.key, s.cron, s.every_us, s.timezone, s.starts_at, s.ends_at, s.overlap, s.catchup, s.kind, s.name, s.template,
    s.next_at, s.waits_for, s.last_id, coalesce($1::timestamptz, now()) as moment
from flowrun.schedules s
where
    s.key = any(array(
        select due.key from (
            select key from flowrun.schedules
            where
                next_at is not null and waits_for is null and not paused and key <> all($3::text[])
                and next_at <= coalesce($1::timestamptz, now())
            order by next_at
            limit $2
        ) due
        union all
        select held.key from flowrun.schedules held
        where
            held.waits_for is not null and not held.paused and held.key <> all($3::text[])
            and (
                select true from flowrun.jobs j
                where j.id = held.waits_for and (select true from flowrun.finished f where f.id = j.id) is null
            ) is null
    ))
    and not s.paused
    and (s.waits_for is not null or s.next_at <= coalesce($1::timestamptz, now()))
order by s.next_at
limit $2
for update of s skip locked
