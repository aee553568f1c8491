-- Let the ends of flows wait for more: for jobs that go on although what comes after them is decided already.
--   $1 uuid[] jobs  $2 uuid[] the end (or verdict) of each one's flow
-- Result: the ends that wait still.
-- Locks: the ends' `blocked` rows, by id. An end that does not wait any more is left alone.
with held as materialized (
    select b.id
    from (select distinct id from unnest($2::uuid[]) as u (id) order by id) u
    cross join lateral (select id from flowrun.blocked where blocked.id = u.id for update) b
),
more as (
    insert into flowrun.edges (parent_id, child_id, condition)
    select u.job_id, u.end_id, 2
    from unnest($1::uuid[], $2::uuid[]) as u (job_id, end_id)
    where u.end_id in (select id from held)
    on conflict (parent_id, child_id, condition) do nothing
    returning child_id
),
longer as (
    update flowrun.blocked set need = need + added.n, open = open + added.n
    from (select child_id, count(*)::integer as n from more group by child_id) added
    where blocked.id = added.child_id
)
select id from held
