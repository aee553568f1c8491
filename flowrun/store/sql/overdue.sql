-- Take away the deadlines that are over: those of jobs at once, those of flows when they are dealt with.
-- Result: job or flow, kind (0 start of a job, 1 end of a flow).
-- Index: deadlines_due_at. Locks: `deadlines` rows, skipping locked ones.
delete from flowrun.deadlines
where id = any(array(
    select id from flowrun.deadlines where due_at <= now() order by due_at limit 100 for update skip locked
))
returning id, kind
