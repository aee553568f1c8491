-- $1 uuid[] job  $2 smallint[] attempt  $3 bigint[] lease  $4 jsonb[] result  $5 bigint[] leases concerned
-- $6 integer handoff limit
-- Without the array in `more_less` a planner that saw `blocked` empty loops over all of it for every child: 1 -> 10,000
-- -> 1 took 7 to 25 s instead of 0.6 to 1.2 (noisy machine).
-- Finish a batch, count down its children (locked in id order), release them, hand up to $6 of them straight back.
with lease as materialized (
    select id from floor.leases where id = any($5::bigint[]) for share
),
done as (
    select unnest($1::uuid[]) as id, unnest($2::smallint[]) as attempt, unnest($3::bigint[]) as lease_id,
        unnest($4::jsonb[]) as result
),
settled as (
    insert into floor.finished (id, outcome, attempt, result)
    select done.id, 1, done.attempt, done.result from done join lease on lease.id = done.lease_id
    on conflict do nothing
    returning id
),
fired as (
    select e.child_id, count(*)::integer as n
    from settled
    cross join lateral (select child_id from floor.edges where parent_id = settled.id offset 0) e
    group by 1
    order by 1
),
child as (
    select b.id, b.need - fired.n as need, fired.n
    from fired
    cross join lateral (select id, need from floor.blocked where id = fired.child_id for update) b
),
one_less as (
    update floor.blocked set need = need - 1
    where id = any(array(select id from child where need > 0 and n = 1))
),
more_less as (
    update floor.blocked set need = child.need
    from (select * from child where need > 0 and n > 1 offset 0) child
    where blocked.id = child.id and blocked.id = any(array(select id from child where need > 0 and n > 1))
),
released as (
    delete from floor.blocked where id = any(array(select id from child where need = 0))
    returning id
),
handoff as (select id from released limit $6),
handoff_lease as (
    insert into floor.leases (worker, jobs) select 1, array_agg(id) from handoff having count(*) > 0
    returning id
),
now_ready as (
    insert into floor.ready (queue, priority, id)
    select j.queue, j.priority, j.id
    from (select id from released except select id from handoff) rest
    cross join lateral (select * from floor.jobs where id = rest.id offset 0) j
)
select j.id, 1::smallint, handoff_lease.id, j.flow_id, j.type, j.args
from handoff_lease, handoff
join floor.jobs j on j.id = handoff.id
