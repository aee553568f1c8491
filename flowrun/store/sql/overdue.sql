-- The deadlines that are over, a hundred of them.
-- Result: job or flow, kind (0 start of a job, 1 end of a flow).
-- Index: deadlines_due_at. Locks: none; each is looked at again, and forgotten, in the transaction that deals with it.
select id, kind from flowrun.deadlines where due_at <= now() order by due_at limit 100
