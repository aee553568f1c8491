-- The next jobs, and ends of flows, that say themselves how long they are kept.
--   $1 uuid after this  $2 uuid up to this  $3 integer at most so many
-- Result: one array.
-- Index: jobs_retention alone; pin_plans.sql goes before. Locks: none.
select array(
    select id from flowrun.jobs where options ? 'retention' and id > $1 and id <= $2 order by id limit $3
)
