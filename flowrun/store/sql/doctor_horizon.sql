-- What keeps dead rows from being removed: old snapshots, prepared transactions, replication slots.
--   $1 float8 seconds from which on a transaction is old
-- Result: what ('session', 'prepared', 'slot'), name (a process id, a transaction, a slot), role, application, state,
-- seconds it has lasted (null: not known), the statement it last sent.
-- Locks: none.
select
    'session' as what, pid::text as name, usename::text as role, application_name as application, state,
    extract(epoch from clock_timestamp() - xact_start)::float8 as seconds, left(query, 100) as statement
from pg_stat_activity
where
    pid <> pg_backend_pid() and backend_type = 'client backend' and datname = current_database()
    and clock_timestamp() - xact_start > make_interval(secs => $1)
union all
select 'prepared', gid, owner::text, null, 'prepared', extract(epoch from clock_timestamp() - prepared)::float8, null
from pg_prepared_xacts
where database = current_database() and clock_timestamp() - prepared > make_interval(secs => $1)
union all
select 'slot', slot_name::text, null, plugin::text, case when active then 'active' else 'inactive' end, null, null
from pg_replication_slots
where not active and greatest(age(xmin), age(catalog_xmin)) > 100000
order by seconds desc nulls last
limit 20
