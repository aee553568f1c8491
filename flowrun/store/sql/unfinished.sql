-- Of some jobs, those without an outcome.
--   $1 uuid[] jobs
select u.id from unnest($1::uuid[]) as u (id)
where not exists (select from flowrun.finished where finished.id = u.id)
