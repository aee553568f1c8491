-- How the hot tables are: live and dead rows as counted, sizes, and whether autovacuum may clean them.
--   $1 text schema
-- Result: name, live, dead, table_bytes, index_bytes, vacuumed_at, cleaned (false: autovacuum is off for it).
-- Locks: none; sizes need a weak one, which an ALTER under way holds up.
select
    c.relname::text as name, s.n_live_tup as live, s.n_dead_tup as dead, pg_relation_size(c.oid) as table_bytes,
    pg_indexes_size(c.oid) as index_bytes, greatest(s.last_vacuum, s.last_autovacuum) as vacuumed_at,
    not coalesce(c.reloptions && array['autovacuum_enabled=false', 'autovacuum_enabled=off'], false) as cleaned
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_stat_all_tables s on s.relid = c.oid
where n.nspname = $1 and c.relkind = 'r'
order by c.relname
