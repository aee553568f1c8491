-- $1 uuid job  $2 text queue  $3 text type  $4 jsonb args  $5 text channel. Wakes in the same commit.
with new as (
    insert into floor.jobs (id, queue, type, args) values ($1, $2, $3, $4) returning id, queue
),
now_ready as (
    insert into floor.ready (queue, id) select queue, id from new
)
select pg_notify($5, '')
