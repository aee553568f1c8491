-- Other arguments for a job that has not run, or runs again. An argument that is given is taken from no parent any more.
--   $1 uuid job  $2 text arguments to replace (JSON)
-- Locks: the job's row.
update flowrun.jobs
set
    args = args || $2::text::jsonb,
    bindings = (
        select coalesce(jsonb_agg(b.one order by b.place), case when bindings is not null then '[]'::jsonb end)
        from jsonb_array_elements(bindings) with ordinality as b (one, place)
        where not ($2::text::jsonb ? (b.one #>> '{0,0}'))
    )
where id = $1
