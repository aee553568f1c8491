-- Remove single jobs and outermost flows that have ended, with all that belongs to them. A key that is held for a time
-- stays until that is over.
--   $1 uuid[] single jobs  $2 uuid[] outermost flows
-- Result: how many jobs that were.
-- Index: flows_root, jobs_flow, keys_id, audit_job, audit_flow, and the primary keys.
-- Locks: what it deletes. The `finished` rows of the jobs, the `flows` rows and the keys are held already.
with inside as materialized (
    select f.id
    from unnest($2::uuid[]) as u (id)
    cross join lateral (select id from flowrun.flows where flows.root_id = u.id offset 0) f
),
gone as materialized (
    select u.id from unnest($1::uuid[] || $2::uuid[]) as u (id)
    union all
    select j.id from inside
    cross join lateral (select id from flowrun.jobs where jobs.flow_id = inside.id offset 0) j
),
a as (delete from flowrun.finished where id = any(array(select id from gone))),
b as (delete from flowrun.edges where parent_id = any(array(select id from gone))),
c as (delete from flowrun.attempts where job_id = any(array(select id from gone))),
d as (delete from flowrun.steps where job_id = any(array(select id from gone))),
e as (delete from flowrun.progress where job_id = any(array(select id from gone))),
f as (delete from flowrun.cancels where id = any(array(select id from gone))),
g as (delete from flowrun.deadlines where id = any(array(select id from gone))),
h as (delete from flowrun.gates where id = any(array(select id from gone))),
i as (delete from flowrun.signals where root_id = any($2)),
k as (
    delete from flowrun.keys
    where id = any($1::uuid[] || $2::uuid[]) and (expires_at is null or expires_at <= clock_timestamp())
),
l as (delete from flowrun.audit where job_id = any(array(select id from gone))),
m as (delete from flowrun.audit where flow_id = any($2) and (job_id = any(array(select id from gone))) is not true),
n as (delete from flowrun.flows where root_id = any($2)),
o as (delete from flowrun.begun where job_id = any(array(select id from gone))),
p as (delete from flowrun.jobs where id = any(array(select id from gone)))
select count(*) from gone
