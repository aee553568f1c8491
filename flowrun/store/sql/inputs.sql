-- What jobs need besides their own rows: results of parents, and how flows went.
--   $1 uuid[] jobs whose result is wanted  $2 uuid[] flows whose outcome is wanted
-- Result: (0, job, outcome, result) and (1, flow, worst outcome of a job that spoils it, null).
-- Its own statement, so that it has a snapshot in which every parent of a released child is finished.
select 0 as kind, f.id, f.outcome, f.result
from unnest($1::uuid[]) as u (id)
cross join lateral (select id, outcome, result from flowrun.finished where finished.id = u.id offset 0) f
union all
select 1, u.id, s.outcome, null
from unnest($2::uuid[]) as u (id)
cross join lateral (
    select min(outcome) as outcome from flowrun.finished where finished.spoils = u.id
) s
where s.outcome is not null
