-- Whether anything is ready in a lane of some queues.
--   $1 text[] queues
-- Index: ready_pkey, one step a queue. Locks: none.
select exists (
    select from unnest($1::text[]) as q (name)
    cross join lateral (
        select queue from flowrun.ready
        where queue > q.name || chr(31) and queue < q.name || ' '
        order by queue limit 1
    ) lane
)
