-- A map knows its items: it will be released when they have ended, and its result is theirs.
--   $1 uuid map  $2 text its arguments from now on (JSON)  $3 uuid[] its items
-- Locks: the map's row in `jobs`.
update flowrun.jobs set args = $2::text::jsonb, sources = $3, bindings = '[]' where id = $1
