-- Jobs that run again: their outcomes are taken back, and the attempts so far count no more. Those among their parents that
-- run again too can be seen again.
--   $1 uuid[] jobs
-- Locks: `finished` rows. The flow is locked, and nothing settles a job that has ended.
with undone as (
    delete from flowrun.finished where id = any($1) returning id, attempt
)
update flowrun.jobs
set options =
    (coalesce(jobs.options, '{}') - 'lost' - 'survived') || jsonb_build_object('before', undone.attempt)
    || case when jobs.options ? 'unseen' then jsonb_build_object('unseen', (jobs.options -> 'unseen') - $1::uuid[]::text[]) else '{}' end
from undone
where jobs.id = undone.id and jobs.kind = 0 and undone.attempt > 0
