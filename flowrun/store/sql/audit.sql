-- What somebody did, and why.
--   $1 uuid id  $2 uuid outermost flow  $3 uuid job  $4 text verb  $5 text actor  $6 text reason  $7 text detail (JSON)
insert into flowrun.audit (id, flow_id, job_id, verb, actor, reason, detail)
values ($1, $2, $3, $4, $5, $6, $7::text::jsonb)
