-- The rows of `flows` alone; the flow's other rows are copied in, in the same transaction.
--   $1 uuid[] flow  $2 uuid root  $3 text[] name  $4 text[] tags (array literals)
--   $5 uuid the job whose handler dispatched it
-- Result: the root's id if it was new. Locks: only what it inserts; a repeat waits for, and finds, the first one's row.
with flow as (
    insert into flowrun.flows (id, root_id, name, tags, dispatched_by)
    select u.id, $2, u.name, u.tags::text[], $5
    from unnest($1::uuid[], $3::text[], $4::text[]) as u (id, name, tags)
    on conflict (id) do nothing
    returning id
)
select id from flow where id = $2
