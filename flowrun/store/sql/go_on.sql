-- Jobs and flows go on: nobody asks them to stop any more. A handler that hears of it late comes back, by its settle.
--   $1 uuid[] jobs, and ends of flows
-- Locks: `cancels` rows; what settles such a job is held already (store/hold.py).
delete from flowrun.cancels where id = any($1)
