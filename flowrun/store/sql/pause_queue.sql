-- Pause a queue, or resume it; one that nothing is known of yet becomes known.
--   $1 text queue  $2 boolean paused
-- Result: one row if something was changed.
-- Locks: the row of the queue.
insert into flowrun.queues (name, paused)
values ($1, $2)
on conflict (name) do update set paused = $2, changed_at = now() where queues.paused <> $2
returning name
