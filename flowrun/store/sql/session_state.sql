-- What a session does.
--   $1 integer its server process
-- Result: `active` while a statement of it runs, else another word; no row, or null, when it is gone or somebody else's.
-- Locks: none.
select state from pg_stat_activity where pid = $1
