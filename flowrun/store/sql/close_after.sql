-- Edges from jobs to the ends of their flows, where there are none. Nothing is counted.
-- Result: the job and the end of each edge that is new.
--   $1 uuid[] jobs  $2 uuid[] the end (or verdict) of each one's flow
-- Locks: only what it inserts. The flow is locked.
insert into flowrun.edges (parent_id, child_id, condition)
select u.job_id, u.end_id, 2 from unnest($1::uuid[], $2::uuid[]) as u (job_id, end_id)
on conflict (parent_id, child_id, condition) do nothing
returning parent_id, child_id
