-- What this role may do in flowrun's schema.
--   $1 text schema
-- Result: a row for each table and view: name, whether it is a view, whether the role may look at some of it, and select,
-- insert, update and delete, and in each whether it may dispatch by the function; none where the role may not even look into
-- the schema.
-- Locks: none.
select
    c.relname::text as name,
    c.relkind = 'v' as view,
    has_any_column_privilege(c.oid, 'select') as sees,
    has_table_privilege(c.oid, 'select') as "select",
    has_table_privilege(c.oid, 'insert') as "insert",
    has_table_privilege(c.oid, 'update') as "update",
    has_table_privilege(c.oid, 'delete') as "delete",
    exists (
        select from pg_proc p
        where p.pronamespace = n.oid and p.proname = 'dispatch' and has_function_privilege(p.oid, 'execute')
    ) as dispatches
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relkind in ('r', 'v') and has_schema_privilege(n.oid, 'usage')
order by c.relname
