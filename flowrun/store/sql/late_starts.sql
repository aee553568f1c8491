-- Of some jobs, those that had to start by a moment that is over.
--   $1 uuid[] jobs
select d.id
from unnest($1::uuid[]) as u (id)
cross join lateral (
    select id from flowrun.deadlines
    where deadlines.id = u.id and ((kind = 0 and due_at <= now()) or kind = 2)
    offset 0
) d
