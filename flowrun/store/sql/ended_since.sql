-- How many handlers' jobs have ended since a moment, by outcome.
--   $1 timestamptz moment
-- Result: outcome, count.
-- Index: none: it reads `finished`. For tests.
-- Locks: none.
select f.outcome, count(*)
from flowrun.finished f
join flowrun.jobs j on j.id = f.id and j.kind = 0
where f.finished_at >= $1
group by f.outcome
