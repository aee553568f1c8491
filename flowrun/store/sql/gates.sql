-- Gates that wait for a signal, the oldest first.
--   $1 integer limit
select
    g.id, g.root_id as flow_id, fl.name as flow, j.name as node, g.signal, j.args::text as args, g.opened_at,
    s.run_at as due_at
from flowrun.gates g
join flowrun.jobs j on j.id = g.id
join flowrun.flows fl on fl.id = g.root_id
left join flowrun.scheduled s on s.id = g.id
order by g.opened_at, g.id
limit $1
