-- A job that had to start by now was claimed and may not have begun: whoever claimed it finds this mark, or has begun.
--   $1 uuid job
-- Locks: only what it inserts.
insert into flowrun.deadlines (id, kind, due_at) values ($1, 2, 'infinity') on conflict (id) do nothing
