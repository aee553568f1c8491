-- The same other arguments for many jobs that run again; as edit_args.sql for one.
--   $1 uuid[] jobs  $2 text arguments to replace (JSON)
-- Locks: the jobs' rows; their `finished` rows are held, by id.
update flowrun.jobs
set
    args = args || $2::text::jsonb,
    bindings = (
        select coalesce(jsonb_agg(b.one order by b.place), case when bindings is not null then '[]'::jsonb end)
        from jsonb_array_elements(bindings) with ordinality as b (one, place)
        where not ($2::text::jsonb ? (b.one #>> '{0,0}'))
    )
where id = any($1)
