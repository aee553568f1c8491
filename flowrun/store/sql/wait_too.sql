-- What waits for a job's result, by a test that must go on looking at that job, waits for what it spawned besides.
--   $1 uuid the job  $2 uuid the join of what it spawned
-- Locks: the children's `blocked` rows, by id. One of several choices is left alone: the other edge would be one more.
with held as materialized (
    select b.id
    from (
        select distinct e.child_id as id
        from flowrun.edges e
        where
            e.parent_id = $1 and e.condition >= 5 and e.test ? 'op' and not e.test ? 'choice'
            and not exists (
                select from flowrun.edges own where own.parent_id = $2 and own.child_id = e.child_id and own.condition = 0
            )
        order by id
    ) u
    cross join lateral (select id from flowrun.blocked where blocked.id = u.id for update) b
),
more as (
    insert into flowrun.edges (parent_id, child_id, condition)
    select $2::uuid, held.id, 0 from held
    returning child_id
)
update flowrun.blocked set need = need + 1, open = open + 1
from more
where blocked.id = more.child_id
