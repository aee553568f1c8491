-- Keep what a step came to, unless that is known already: the first one stays.
--   $1 uuid job  $2 text name  $3 text value (JSON)
-- Result: the value that is kept.
-- Locks: the row, if it is there. It is then written as it is: `do nothing` would not return it, and a select beside it
-- would not see one that another attempt has just committed.
insert into flowrun.steps (job_id, name, value) values ($1, $2, $3::text::jsonb)
on conflict (job_id, name) do update set name = excluded.name
returning value
