-- A gate is reached: it waits, unless its signal is there, or its time was over.
--   $1 uuid gate  $2 uuid its flow  $3 text signal  $4 float8 seconds to wait (null: for ever)
-- Result: 'signalled' with the value, 'late' (it had waited before), or 'waits'; and the outermost flow.
-- Locks: the gate's row. The flow is locked, so that no signal comes between looking and waiting.
with root as materialized (
    select root_id as id from flowrun.flows where id = $2
),
signal as materialized (
    select signals.value from flowrun.signals, root where signals.root_id = root.id and signals.signal = $3
),
waited as (
    delete from flowrun.gates where id = $1 returning id
),
opened as (
    insert into flowrun.gates (id, root_id, signal)
    select $1, root.id, $3 from root
    where not exists (select from signal) and not exists (select from waited)
    returning id
),
timed as (
    insert into flowrun.scheduled (id, run_at, attempt)
    select id, clock_timestamp() + make_interval(secs => case when $4::float8 > 1e10 then 1e10 else $4::float8 end), 1 from opened where $4::float8 is not null
)
select
    case
        when exists (select from signal) then 'signalled'
        when exists (select from opened) then 'waits'
        else 'late'
    end as note,
    (select value::text from signal) as value,
    (select id from root) as root
