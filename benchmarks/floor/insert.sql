-- $1 uuid job  $2 text queue  $3 text type  $4 jsonb args. No notification.
with new as (
    insert into floor.jobs (id, queue, type, args) values ($1, $2, $3, $4) returning id, queue
)
insert into floor.ready (queue, id) select queue, id from new
