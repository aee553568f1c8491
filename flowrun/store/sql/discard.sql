-- Take jobs that failed out of the dead letter; nothing else about them changes.
--   $1 uuid[] jobs
-- Result: those that were in it.
-- Locks: their `finished` rows.
update flowrun.finished set error = coalesce(error, '{}') || '{"discarded": true}'
where id = any($1) and outcome = 2 and (error ->> 'discarded') is null
returning id
