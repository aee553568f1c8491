-- A signal comes; the first of a name counts.
--   $1 uuid outermost flow  $2 text signal  $3 text value (JSON)  $4 text actor
-- Result: a row if it was the first.
insert into flowrun.signals (root_id, signal, value, actor) values ($1, $2, $3::text::jsonb, $4)
on conflict (root_id, signal) do nothing
returning signal
