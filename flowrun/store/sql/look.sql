-- The next jobs in the order of their ids, which is about that of their dispatch.
--   $1 uuid after this  $2 uuid up to this  $3 integer at most so many
-- Result: one array.
-- Index: jobs_pkey alone; pin_plans.sql goes before. Locks: none.
select array(select id from flowrun.jobs where id > $1 and id <= $2 order by id limit $3)
