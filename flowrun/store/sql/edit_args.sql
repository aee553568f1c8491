-- Other arguments for jobs that run again. An argument that is given, or taken out, is taken from no parent any more.
--   $1 uuid[] jobs  $2 text arguments to replace (JSON)  $3 text[] names of arguments to take out
-- Result: the jobs it was done to; not those whose arguments are encrypted, which args_of.sql and set_args.sql are for.
-- Locks: the jobs' rows; their `finished` rows are held, by id, or their flow.
update flowrun.jobs
set
    args = (args || $2::text::jsonb) - $3::text[],
    bindings = (
        select coalesce(jsonb_agg(b.one order by b.place), case when bindings is not null then '[]'::jsonb end)
        from jsonb_array_elements(bindings) with ordinality as b (one, place)
        where not ($2::text::jsonb ? (b.one #>> '{0,0}')) and not (b.one #>> '{0,0}') = any($3)
    )
where id = any($1) and jsonb_typeof(args) = 'object' and not args ? 'sealed'
returning id
