-- Of some jobs, the units (single jobs, and outermost flows by the job that ends them) that have ended and are kept no
-- longer. Of flows the rest is looked at when they are locked: see closed_flows.sql.
--   $1 uuid[] jobs  $2 float8 seconds ago that they ended, whatever their retention; null: as their retention says
--   $3 smallint outcome  $4 text type  $5 text queue  $6 text tag  $7 text name of the flow  $8, $9 timestamptz dispatched
--   from and before  $10 smallint kind (0 single jobs, 1 flows); each of $3 to $10 may be null
-- Result: id, kind, finished_at, by id.
-- Index: jobs_pkey, finished_pkey, flows_pkey, retention_pkey. Locks: none.
select j.id, j.kind, f.finished_at
from unnest($1::uuid[]) with ordinality as u (id, place)
cross join lateral (
    select id, flow_id, kind, type, split_part(queue, chr(31), 1) as queue, options, created_at
    from flowrun.jobs where jobs.id = u.id
    offset 0
) j
cross join lateral (select outcome, finished_at from flowrun.finished where finished.id = j.id offset 0) f
left join lateral (select name, tags from flowrun.flows where flows.id = j.id offset 0) fl on j.kind = 1
cross join lateral (
    select coalesce(
        case jsonb_typeof(j.options -> 'retention')
            when 'object' then
                (substring(j.options -> 'retention' ->> (array['succeeded', 'failed', 'cancelled', 'skipped'])[f.outcome] from '^"?([0-9]{1,18}([.][0-9]{1,18})?([eE][+-]?[0-9]{1,2})?|[Ii]nf(inity)?)"?$'))::float8
            else (substring(j.options ->> 'retention' from '^"?([0-9]{1,18}([.][0-9]{1,18})?([eE][+-]?[0-9]{1,2})?|[Ii]nf(inity)?)"?$'))::float8
        end,
        (select seconds from flowrun.retention where scope = 'type' and name = j.type and outcome = f.outcome),
        (select seconds from flowrun.retention where scope = 'queue' and name = j.queue and outcome = f.outcome),
        (select seconds from flowrun.retention where scope = 'flow' and name = fl.name and outcome = f.outcome),
        (select seconds from flowrun.retention where scope = 'all' and name = '' and outcome = f.outcome)
    ) as seconds
    offset 0
) kept
where
    j.flow_id is null
    and j.kind in (0, 1)
    and extract(epoch from clock_timestamp() - f.finished_at) >= coalesce($2, kept.seconds)
    and ($3::smallint is null or f.outcome = $3)
    and ($4::text is null or j.type = $4)
    and ($5::text is null or j.queue = $5)
    and ($6::text is null or j.options -> 'tags' ? $6 or $6 = any(fl.tags))
    and ($7::text is null or fl.name = $7)
    and ($8::timestamptz is null or j.created_at >= $8)
    and ($9::timestamptz is null or j.created_at < $9)
    and ($10::smallint is null or j.kind = $10)
order by u.place
