-- The flow a job is a node of; of a flow's end, the flow that it ends.
--   $1 uuid job
select case when kind = 1 then id else flow_id end from flowrun.jobs where id = $1
