-- A worker starts.
--   $1 uuid id  $2 text name  $3 text[] queues  $4 integer concurrency  $5 float8 lease in seconds
--   $6 text[] types it has handlers for
insert into flowrun.workers (id, name, queues, concurrency, expires_at, types, heard, heeds_types)
values ($1, $2, $3, $4, now() + make_interval(secs => $5), $6, -1, true)
on conflict (id) do update set expires_at = excluded.expires_at
