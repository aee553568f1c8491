-- What somebody did to many jobs, and why.
--   $1 uuid[] id  $2 uuid[] jobs  $3 uuid outermost flow, or null  $4 text verb  $5 text actor  $6 text reason
insert into flowrun.audit (id, flow_id, job_id, verb, actor, reason)
select u.id, $3, u.job_id, $4, $5, $6 from unnest($1::uuid[], $2::uuid[]) as u (id, job_id)
