-- The server as this role finds it.
-- Result: one row: version (a number: 180006), recovery, read_only (what new transactions are), isolation (their level),
-- the role, whether it is a superuser, its search_path, settings that can hurt (milliseconds where they are times), the
-- clock, sessions and how many there can be, those of this database and role and their limits, and how full the queue of
-- notifications is (0 to 1).
-- Locks: none.
select
    current_setting('server_version_num')::integer as version,
    pg_is_in_recovery() as recovery,
    current_setting('transaction_read_only') = 'on' as read_only,
    current_user::text as role,
    r.rolsuper as superuser,
    current_setting('fsync') = 'on' as fsync,
    current_setting('full_page_writes') = 'on' as full_page_writes,
    current_setting('synchronous_commit') as synchronous_commit,
    current_setting('autovacuum') = 'on' and current_setting('track_counts') = 'on' as autovacuum,
    clock_timestamp() as clock,
    (select count(*) from pg_stat_activity where backend_type = 'client backend')::integer as sessions,
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
        as sessions_most,
    (select count(*) from pg_stat_activity where datname = current_database() and backend_type = 'client backend')::integer
        as here,
    d.datconnlimit as here_most,
    (select count(*) from pg_stat_activity where usename = current_user and backend_type = 'client backend')::integer
        as mine,
    r.rolconnlimit as mine_most,
    pg_notification_queue_usage() as notifications,
    pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees_all
from pg_roles r
join pg_database d on d.datname = current_database()
where r.rolname = current_user
