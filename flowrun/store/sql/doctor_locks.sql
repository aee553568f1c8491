-- Who holds, or waits for, a lock on tables of flowrun's that keeps its statements waiting.
--   $1 text schema
-- Result: pid, role, application, mode, granted, table, seconds of its transaction (null: not to be seen), its statement.
-- Locks: none.
select
    l.pid, a.usename::text as role, a.application_name as application, l.mode, l.granted, c.relname::text as "table",
    extract(epoch from clock_timestamp() - a.xact_start)::float8 as seconds, left(a.query, 100) as statement
from pg_locks l
join pg_class c on c.oid = l.relation
join pg_namespace n on n.oid = c.relnamespace
left join pg_stat_activity a on a.pid = l.pid
where
    l.locktype = 'relation' and l.database = (select oid from pg_database where datname = current_database())
    and n.nspname = $1 and l.pid <> pg_backend_pid()
    and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
order by l.granted desc, seconds desc nulls last
limit 20
