-- End sessions of this role.
--   $1 integer[] their server processes
-- A session that listens and is not read waits, when its buffers are full, with its snapshot held: nothing that was
-- deleted since can be cleaned up, in the whole database (after about 85,000 notifications).
-- Locks: none.
select pg_terminate_backend(pid) from pg_stat_activity where pid = any($1) and datname = current_database() and usename = current_user
