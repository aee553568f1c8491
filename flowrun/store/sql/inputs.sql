-- What jobs need besides their own rows: results of parents, and how flows went.
--   $1 uuid[] parents whose result is wanted, each once
--   $2 uuid[] flows whose outcome is wanted
-- Result: (0, parent, result; null where it did not succeed) and (1, flow, worst outcome of a job that spoils it); 1
-- (succeeded) for a flow that was cancelled when the last of its jobs were about to succeed, and did. A parent that has
-- not ended gives no row: the job is behind a join, and is never to see it (note_unseen.sql).
-- Its own statement, so that it has a snapshot in which every parent of a released child is finished.
select 0 as kind, f.id, f.result, null::smallint as outcome
from unnest($1::uuid[]) as u (id)
cross join lateral (select id, result from flowrun.finished where finished.id = u.id offset 0) f
union all
select 1, u.id, null, s.outcome
from unnest($2::uuid[]) as u (id)
cross join lateral (
    select coalesce(
        (select min(outcome) from flowrun.finished where finished.spoils = u.id),
        (select 1 from flowrun.cancels where cancels.id = u.id)
    ) as outcome
) s
where s.outcome is not null
