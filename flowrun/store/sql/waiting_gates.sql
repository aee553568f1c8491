-- The gates that wait for a signal.
--   $1 uuid outermost flow  $2 text signal
-- Index: gates_signal. Locks: none. The flow is locked.
select id from flowrun.gates where root_id = $1 and signal = $2
