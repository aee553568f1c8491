-- The part of a graph that the end of some jobs can change: their own edges, and, behind every child that may now be
-- skipped, all edges further down. What has ended itself is not skipped: its own edges are enough.
--   $1 uuid[] jobs that ended  $2 smallint[] outcome  $3 boolean[] optional
-- Result: edges (parent_id, child_id, condition, passed: whether the parent's result is as the edge asks, rivals).
-- Reads only. Locks come next, by lock_blocked.sql.
with recursive ended as (
    select * from unnest($1::uuid[], $2::smallint[], $3::boolean[]) as u (id, outcome, optional)
),
own as (
    select
        e.parent_id, e.child_id, e.condition, e.test,
        e.condition = 2
        or (e.condition = 1 and ended.outcome = 2)
        or (e.condition = 3 and ended.outcome = 1)
        or (e.condition = 4 and ended.outcome = 3)
        or (e.condition in (0, 4) and (ended.outcome = 1 or (ended.outcome = 2 and ended.optional))) as satisfied
    from ended
    cross join lateral (
        select parent_id, child_id, condition, test from flowrun.edges where edges.parent_id = ended.id offset 0
    ) e
),
below (id) as (
    select child_id from own where not satisfied and (child_id in (select id from ended)) is not true
    union
    select e.child_id
    from below
    cross join lateral (select child_id from flowrun.edges where edges.parent_id = below.id offset 0) e
    where (e.child_id in (select id from ended)) is not true
),
found as (
    select parent_id, child_id, condition, test from own
    union all
    select e.parent_id, e.child_id, e.condition, e.test
    from below
    cross join lateral (
        select parent_id, child_id, condition, test from flowrun.edges where edges.parent_id = below.id offset 0
    ) e
)
select
    found.parent_id,
    found.child_id,
    case when found.test ->> 'on' ~ '^[0-4]$' then (found.test ->> 'on')::smallint when found.condition < 5 then found.condition else 0::smallint end as condition,
    case when found.test ? 'op' then coalesce(answer.passed, false) else true end as passed,
    case
        when found.test ? 'rivals' then array(
            select rival::uuid from jsonb_array_elements_text(case when jsonb_typeof(found.test -> 'rivals') = 'array' then found.test -> 'rivals' end) rival
            where rival ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
        )
    end as rivals
from found
left join lateral (
    select
        case found.test ->> 'op'
            when '==' then x.got = x.value
            when '!=' then x.got <> x.value
            when 'in' then exists (select from jsonb_array_elements(case when jsonb_typeof(x.value) = 'array' then x.value end) as one (value) where one.value = x.got)
            when 'not in' then
                not exists (select from jsonb_array_elements(case when jsonb_typeof(x.value) = 'array' then x.value end) as one (value) where one.value = x.got)
            when 'contains' then case jsonb_typeof(x.got)
                when 'string' then strpos(x.got #>> '{}', x.value #>> '{}') > 0
                when 'array' then exists (select from jsonb_array_elements(x.got) as one (value) where one.value = x.value)
                when 'object' then x.got ? (x.value #>> '{}')
            end
            else jsonb_typeof(x.got) = jsonb_typeof(x.value) and jsonb_typeof(x.got) in ('number', 'string')
                and case found.test ->> 'op'
                    when '<' then x.got < x.value
                    when '<=' then x.got <= x.value
                    when '>' then x.got > x.value
                    when '>=' then x.got >= x.value
                end
        end as passed
    from (
        select
            coalesce(f.result #> array(
                select jsonb_array_elements_text(case when jsonb_typeof(found.test -> 'path') = 'array' then found.test -> 'path' end)
            ), 'null') as got,
            found.test -> 'value' as value
        from flowrun.finished f
        where f.id = found.parent_id and f.outcome = 1
        offset 0
    ) x
) answer on found.test ? 'op'
