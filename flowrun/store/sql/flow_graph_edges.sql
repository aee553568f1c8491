-- The edges that lead from some jobs.
--   $1 uuid[] jobs
-- Result: as reach.sql.
with found as (
    select e.parent_id, e.child_id, e.condition, e.test
    from unnest($1::uuid[]) as u (id)
    cross join lateral (
        select parent_id, child_id, condition, test from flowrun.edges where edges.parent_id = u.id offset 0
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
