-- Other arguments for jobs that run again, as edit_args.sql, where they were put together outside the database.
--   $1 uuid[] jobs  $2 text[] all their arguments (JSON)  $3 text[] names of those that were replaced or taken out
-- Locks: the jobs' rows; their `finished` rows are held, or their flow.
update flowrun.jobs
set
    args = u.args::jsonb,
    bindings = (
        select coalesce(jsonb_agg(b.one order by b.place), case when jobs.bindings is not null then '[]'::jsonb end)
        from jsonb_array_elements(jobs.bindings) with ordinality as b (one, place)
        where not b.one #>> '{0,0}' = any($3)
    )
from unnest($1::uuid[], $2::text[]) as u (id, args)
where jobs.id = u.id
