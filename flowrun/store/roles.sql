-- Roles that may do just what they have to. Run it as a superuser, or as one who owns flowrun's tables and may create roles; run
-- it again after each migration, which is harmless: what stands here is then all that these roles may do. Give the roles to those who log in: grant flowrun_worker to shop;

-- Who migrates: everything in the schema becomes its own. What it makes later is nobody's who was not granted it.
alter schema flowrun owner to flowrun_owner;
revoke all on schema flowrun from public;
revoke all on all tables in schema flowrun from public;
revoke all on all routines in schema flowrun from public;
alter default privileges for role flowrun_owner revoke execute on routines from public;

-- Who runs jobs, and whoever dispatches, waits for results, cancels and retries: all rows, no definitions. What operators did
-- is added to, and removed with the jobs it is about, never changed.
revoke all on all tables in schema flowrun from flowrun_worker;
grant usage on schema flowrun to flowrun_worker;
grant select, insert, update, delete on all tables in schema flowrun to flowrun_worker;
revoke insert, update, delete on flowrun.migrations from flowrun_worker;
revoke insert, update, delete on flowrun.job_status, flowrun.flow_status, flowrun.failed_jobs from flowrun_worker;
revoke update on flowrun.audit from flowrun_worker;
alter default privileges for role flowrun_owner in schema flowrun
grant select, insert, update, delete on tables to flowrun_worker;

-- Who dispatches and no more: jobs, many jobs, flows, with keys, by a function that ties together only what is dispatched in
-- one call. It sees who has the keys that it asks for, and nothing else; it cannot wait, cancel or retry.
revoke all on all tables in schema flowrun from flowrun_dispatcher;
revoke all on all routines in schema flowrun from flowrun_dispatcher;
grant usage on schema flowrun to flowrun_dispatcher;
grant execute on function flowrun.dispatch(json), flowrun.nodes_of(text, text, uuid) to flowrun_dispatcher;
grant select on flowrun.migrations to flowrun_dispatcher;

-- Who looks: states, times, errors; no arguments, results, tracebacks, steps, signals, nor what a job's options or the tests of
-- edges hold.
revoke all on all tables in schema flowrun from flowrun_reader;
grant usage on schema flowrun to flowrun_reader;
grant select on
    flowrun.flow_status, flowrun.flows, flowrun.blocked, flowrun.ready, flowrun.scheduled, flowrun.leases,
    flowrun.slots, flowrun.starts, flowrun.queues, flowrun.types, flowrun.workers, flowrun.cancels, flowrun.deadlines, flowrun.gates,
    flowrun.migrations
to flowrun_reader;
grant select (parent_id, child_id, condition) on flowrun.edges to flowrun_reader;
grant select (
    id, flow_id, name, type, queue, priority, state, attempt, optional, created_at, run_at, started_at, finished_at, worker,
    error_type, error, cause, progress, progress_message, cancel_requested, dispatched_by
) on flowrun.job_status to flowrun_reader;
grant select (id, flow_id, kind, name, queue, type, priority, optional, delay, run_at, created_at) on flowrun.jobs
to flowrun_reader;
grant select (id, outcome, attempt, started_at, finished_at, spoils, cause, error) on flowrun.finished to flowrun_reader;
grant select (job_id, attempt, worker, started_at, ended_at, error_type, message) on flowrun.attempts to flowrun_reader;
grant select (id, flow_id, job_id, verb, actor, reason, done_at) on flowrun.audit to flowrun_reader;
