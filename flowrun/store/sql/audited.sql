-- What people did to a flow or a job, the first first.
--   $1 uuid flow or job
-- Result: verb, actor, reason, at, job_id, node's name, detail (JSON), outermost flow.
-- Index: audit_flow, audit_job. Locks: none.
select a.verb, a.actor, a.reason, a.done_at as at, a.job_id, j.name as node, a.detail::text as detail, a.flow_id
from flowrun.audit a
left join flowrun.jobs j on j.id = a.job_id
where a.flow_id = $1 or a.job_id = $1
order by a.id
