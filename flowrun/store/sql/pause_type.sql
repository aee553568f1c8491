-- Pause a type of jobs, or resume it; one that nothing is known of yet becomes known.
--   $1 text type  $2 boolean paused
-- Result: one row if something was changed.
-- Locks: the row of the type.
insert into flowrun.types (name, paused)
select $1, $2 where $2 or exists (select from flowrun.types where name = $1)
on conflict (name) do update set paused = $2, changed_at = now() where types.paused <> $2
returning name
