-- Have claims under limits to oneself until the transaction's end.
-- Locks: the row of `throttle`.
select claims from flowrun.throttle for update
