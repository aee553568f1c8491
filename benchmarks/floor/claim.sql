-- $1 text queue  $2 integer limit  $3 uuid low-water mark
-- Deletes by ctid (rows of `ready` are never updated), one lease row for the batch.
with taken as (
    delete from floor.ready
    where ctid = any(array(
        select ctid from floor.ready
        where queue = $1 and priority = 0 and id > $3
        order by id
        limit $2
        for update skip locked
    ))
    returning id, (attempt + 1)::smallint as attempt
),
lease as (
    insert into floor.leases (worker, jobs) select 1, array_agg(id) from taken having count(*) > 0
    returning id
)
select j.id, taken.attempt, lease.id, j.flow_id, j.type, j.args
from lease, taken
join floor.jobs j on j.id = taken.id
