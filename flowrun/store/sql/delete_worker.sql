-- A worker is gone.
--   $1 uuid worker
delete from flowrun.workers where id = $1
