-- Whether it is time for a step of pruning, and nobody else's turn. The row stays locked until the step is committed.
-- Result: own, mark, seconds since the pass began, the shortest retention there is a rule for, the time (seconds since
-- 1970); no row: not now.
-- Locks: the row of `pruning`, skipping it when it is locked.
select
    own, mark, extract(epoch from clock_timestamp() - began_at)::float8,
    (select coalesce(min(seconds), 'infinity') from flowrun.retention),
    extract(epoch from clock_timestamp())::float8
from flowrun.pruning
where due_at <= clock_timestamp()
for update skip locked
