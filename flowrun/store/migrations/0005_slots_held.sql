-- How many slots a worker holds by a lease. With it, a worker may have more jobs in a lease than may run at once, and
-- runs no more of them than this. Null: as many as the lease has jobs (sequences; workers of the version before).
alter table flowrun.slots add column most integer;
