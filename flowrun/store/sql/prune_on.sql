-- A step of pruning is done.
--   $1 boolean own  $2 uuid mark  $3 float8 seconds until the next step  $4 boolean whether that begins a new pass
-- Locks: the row of `pruning`, which is held.
update flowrun.pruning
set
    own = $1, mark = $2, due_at = clock_timestamp() + make_interval(secs => $3),
    began_at = case when $4 then clock_timestamp() + make_interval(secs => $3) else began_at end
