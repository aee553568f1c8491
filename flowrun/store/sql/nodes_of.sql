-- The nodes of a flow that has a key: flow_names.sql for who may read no table.
--   $1 text scope  $2 text key  $3 uuid flow
-- Result: name, id, type. Locks: none.
select name, id, type from flowrun.nodes_of($1, $2, $3)
