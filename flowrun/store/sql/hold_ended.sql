-- Jobs that have ended, locked where their outcome stands: of those who run one again, resolve or remove it, one does.
--   $1 uuid[] jobs
-- Result: id, outcome.
-- Locks: `finished` rows by id.
select f.id, f.outcome
from (select id from unnest($1::uuid[]) as u (id) order by id) u
cross join lateral (select id, outcome from flowrun.finished where finished.id = u.id for update) f
