-- Whether a flow cannot succeed any more: one of its jobs failed or was cancelled.
--   $1 uuid flow
-- Index: finished_spoils.
select exists (select from flowrun.finished where spoils = $1)
