-- Whether the role of this session writes flowrun's tables itself. One that may not, may dispatch by a function, if anything.
--   $1 text schema
-- Result: one row, or none where there are no tables.
-- Locks: none.
select has_table_privilege(c.oid, 'insert')
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = 'jobs'
