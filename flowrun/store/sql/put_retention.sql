-- How long what has ended is kept: rules, written over those of the same scope and name.
--   $1 text[] scope  $2 text[] name  $3 smallint[] outcome  $4 float8[] seconds
--   $5 text[] types whose rules are taken away where none of these says otherwise
-- Locks: the rules, in order of scope, name and outcome.
with gone as (
    delete from flowrun.retention
    where scope = 'type' and name = any($5)
    and (scope, name, outcome) not in (select * from unnest($1::text[], $2::text[], $3::smallint[]))
)
insert into flowrun.retention (scope, name, outcome, seconds)
select u.scope, u.name, u.outcome, u.seconds
from unnest($1::text[], $2::text[], $3::smallint[], $4::float8[]) as u (scope, name, outcome, seconds)
order by u.scope, u.name, u.outcome
on conflict (scope, name, outcome) do update set seconds = excluded.seconds
where retention.seconds <> excluded.seconds
