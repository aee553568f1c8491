-- What a job is, and how it ended.
--   $1 uuid job
-- Result: kind, name (or type), outcome (null: it has not ended), attempt.
select j.kind, coalesce(j.name, j.type), f.outcome, f.attempt
from flowrun.jobs j
left join flowrun.finished f on f.id = j.id
where j.id = $1
