-- The state of a job is the table its id stands in. What never changes (jobs, edges, flows) is written once; what
-- changes is narrow: blocked -> scheduled | ready -> leases -> finished. A job stands in exactly one of these.

create table flowrun.flows (
    id uuid primary key,  -- also the id of the job of kind `end` that ends the flow
    root_id uuid not null,  -- the outermost flow; its own id for that one
    name text not null,
    tags text[] not null default '{}',
    dispatched_by uuid,  -- the job whose handler dispatched it
    created_at timestamptz not null default now()
);
create index flows_root on flowrun.flows (root_id);
create index flows_created on flowrun.flows (created_at);

create table flowrun.jobs (
    id uuid primary key,
    flow_id uuid,  -- the innermost flow it is a node of; null for a single job and for the end of an outermost flow
    kind smallint not null default 0 check (kind between 0 and 6),
    -- 0 handler, 1 end of a flow, 2 join, 3 gate, 4 sleep, 5 map, 6 verdict of a flow whose nodes can be compensated
    name text,  -- of the node: unique in the outermost flow, `inner/step` inside a nested one
    queue text not null,  -- or a lane of it: see core/lanes.py
    type text not null,
    args jsonb not null,
    sources uuid[],  -- parents whose results belong into args ...
    bindings jsonb,  -- ... and where: [[path in args], number of the source, [path in its result]]
    priority smallint not null default 5 check (priority between 0 and 9),
    optional boolean not null default false,
    delay double precision check (delay >= 0),  -- seconds, from release
    run_at timestamptz,
    options jsonb,  -- what only the worker reads: attempts, timeout, backoff, retry_on, give_up_on, tags, cleanup ...
    parents uuid[],  -- all it waits for, where `job.parents` is asked for: by its handler, or through a join
    created_at timestamptz not null default now(),
    check ((sources is null) = (bindings is null))
);
create index jobs_flow on flowrun.jobs (flow_id) where flow_id is not null;

create table flowrun.edges (
    parent_id uuid not null,
    child_id uuid not null,
    condition smallint not null default 0 check (condition >= 0),
    -- 0 succeeded (or failed, if optional), 1 failed, 2 finished, 3 succeeded itself, 4 succeeded or cancelled;
    -- 5 and above: as `test` says, numbered because there can be several between the same two jobs
    test jsonb,  -- {"on": condition 0 to 4, "path": [...], "op": "==", "value": ..., "choice": true, "rivals": [...]}
    primary key (parent_id, child_id, condition),
    check ((condition >= 5) = (test is not null))
);

-- Waits for its parents. `need` more edges must be satisfied, `open` are undecided: released at need = 0, skipped at
-- open < need, the row deleted either way, so that whatever comes later finds nothing to do.
create table flowrun.blocked (
    id uuid primary key,
    need integer not null check (need > 0),
    open integer not null,
    check (open >= need)
) with (fillfactor = 70);

create table flowrun.scheduled (
    id uuid primary key,
    run_at timestamptz not null,
    attempt smallint not null default 0  -- attempts used so far
);
create index scheduled_run_at on flowrun.scheduled (run_at);

-- Rows are inserted and deleted, never updated: the claim deletes by ctid and relies on it.
create table flowrun.ready (
    queue text collate "C" not null,  -- or a lane of it: see core/lanes.py
    priority smallint not null,
    id uuid not null,
    type text not null,
    attempt smallint not null default 0,  -- attempts used so far
    primary key (queue, priority, id)
);

-- One row for a claimed batch. `n` is counted by the worker, so that after a lost reply it can name what it may hold.
create table flowrun.leases (
    worker_id uuid not null,
    n bigint not null,
    claimed_at timestamptz not null default now(),
    jobs uuid[] not null,
    attempts smallint[] not null,  -- the number of the attempt under way, job by job
    touched boolean not null default false,  -- edges of its jobs were added meanwhile: settle.sql leaves them to others
    primary key (worker_id, n),
    check (cardinality(jobs) = cardinality(attempts))
);
alter table flowrun.leases alter column jobs set storage main, alter column attempts set storage main;

create table flowrun.finished (
    id uuid primary key,
    outcome smallint not null check (outcome between 1 and 4),  -- 1 succeeded, 2 failed, 3 cancelled, 4 skipped
    attempt smallint not null,
    result jsonb,
    started_at timestamptz,  -- of the last attempt
    finished_at timestamptz not null default now(),
    spoils uuid,  -- the flow that cannot succeed any more because of this job
    cause uuid,  -- of a skip: the parent
    error jsonb  -- {"type", "message"} of a failure; {"message"} of a skip or a cancel
);
create index finished_spoils on flowrun.finished (spoils) where spoils is not null;
create index finished_failed on flowrun.finished (finished_at desc, id desc) where outcome = 2 and (error ->> 'discarded') is null;

-- Attempts that did not succeed.
create table flowrun.attempts (
    job_id uuid not null,
    attempt smallint not null,
    worker text,
    started_at timestamptz,
    ended_at timestamptz not null default now(),
    error_type text not null,
    message text not null,
    traceback text,
    detail jsonb,  -- {"notes": [...], "cause": text, "detail": what the exception has by that name}
    primary key (job_id, attempt)
);

-- What was asked to stop and has not stopped yet: running jobs, and flows that take in nothing new.
create table flowrun.cancels (
    id uuid primary key,
    reason text,
    actor text,
    harmless boolean not null default false,  -- lost a race: does not spoil its flow
    requested_at timestamptz not null default now()
);

-- What must not go on beyond a moment: a job that has to start by then, a flow that has to be done.
create table flowrun.deadlines (
    id uuid primary key,
    kind smallint not null check (kind between 0 and 2),  -- 0 start of a job, 1 end of a flow, 2 start, over already
    due_at timestamptz not null
);
create index deadlines_due_at on flowrun.deadlines (due_at);

-- Nodes that wait for a signal. One with a timeout stands in `scheduled` besides.
create table flowrun.gates (
    id uuid primary key,
    root_id uuid not null,  -- the outermost flow
    signal text not null,
    opened_at timestamptz not null default now()
);
create index gates_signal on flowrun.gates (root_id, signal);

-- Signals that have come, each once, before or after somebody waits for them.
create table flowrun.signals (
    root_id uuid not null,
    signal text not null,
    value jsonb,
    actor text,
    sent_at timestamptz not null default now(),
    primary key (root_id, signal)
);

-- Keys that make a dispatch idempotent. `scope` is 'job:' and the type, or 'flow:' and the name.
create table flowrun.keys (
    scope text not null,
    key text not null,
    id uuid not null,
    expires_at timestamptz,  -- null: as long as the job or flow is stored
    primary key (scope, key)
);
create index keys_id on flowrun.keys (id);

-- What is known of a queue besides its name. Most have no row here.
create table flowrun.queues (
    name text primary key,
    concurrency integer check (concurrency > 0),  -- jobs of it that run at once, on all workers together
    rate_jobs integer check (rate_jobs > 0),  -- jobs that may start ...
    rate_seconds double precision check (rate_seconds > 0),  -- ... in any stretch of so many seconds
    paused boolean not null default false,
    changed_at timestamptz not null default now(),
    check ((rate_jobs is null) = (rate_seconds is null))
);

-- Who has taken what of a limit: a lease, which is the slot as long as it lives. See claim_limited.sql.
create table flowrun.slots (
    name text collate "C" not null,  -- 'queue:', 'key:', 'type:' or 'sequence:' and a name
    worker_id uuid not null,
    n bigint not null,
    jobs uuid[] not null,
    primary key (name, worker_id, n)
);

-- Counts the claims under limits, which must see each other. One row.
create table flowrun.throttle (
    id smallint primary key default 1 check (id = 1),
    claims bigint not null default 0
);
insert into flowrun.throttle default values;

-- When jobs of queues with a rate were claimed.
create table flowrun.starts (
    queue text not null,
    started_at timestamptz not null,
    jobs integer not null
);
create index starts_queue on flowrun.starts (queue, started_at);

-- What `job.step` remembers.
create table flowrun.steps (
    job_id uuid not null,
    name text not null,
    value jsonb,
    done_at timestamptz not null default now(),
    primary key (job_id, name)
);

-- What `job.progress` said last.
create table flowrun.progress (
    job_id uuid primary key,
    fraction double precision not null check (fraction between 0 and 1),
    message text,
    reported_at timestamptz not null default now()
);

-- What operators did, and why.
create table flowrun.audit (
    id uuid primary key,
    flow_id uuid,  -- the outermost flow
    job_id uuid,
    verb text not null,
    actor text,
    reason text,
    detail jsonb,
    done_at timestamptz not null default now()
);
create index audit_flow on flowrun.audit (flow_id) where flow_id is not null;
create index audit_job on flowrun.audit (job_id) where job_id is not null;

create table flowrun.workers (
    id uuid primary key,
    name text not null,
    queues text[] not null,
    types text[] not null default '{}',  -- those it has handlers for
    changes integer not null default 0,  -- of queues, since it started: it claims only with the knowledge of all
    concurrency integer not null,
    started_at timestamptz not null default now(),
    expires_at timestamptz not null  -- pushed on by every heartbeat; after it, the worker's jobs are rescued
);

-- A queue's statistics are always wrong by the time they are used.
alter table flowrun.ready set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
alter table flowrun.leases set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
alter table flowrun.blocked set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);

create view flowrun.job_status as
select
    j.id,
    j.flow_id,
    j.name,
    j.type,
    split_part(j.queue, chr(31), 1) as queue,
    j.priority,
    case
        when f.id is not null then (array['succeeded', 'failed', 'cancelled', 'skipped'])[f.outcome]
        when g.id is not null then 'waiting'
        when l.id is not null then 'running'
        when r.id is not null then 'ready'
        when s.id is not null then 'scheduled'
        else 'waiting'
    end as state,
    coalesce(f.attempt, l.attempt, r.attempt, s.attempt, 0::smallint) as attempt,
    j.optional,
    j.created_at,
    coalesce(s.run_at, j.run_at) as run_at,
    coalesce(f.started_at, l.claimed_at) as started_at,
    f.finished_at,
    w.name as worker,
    f.error ->> 'type' as error_type,
    f.error ->> 'message' as error,
    f.cause,
    f.result,
    p.fraction as progress,
    p.message as progress_message,
    c.id is not null and f.id is null as cancel_requested,
    (j.options ->> 'dispatched_by')::uuid as dispatched_by
from flowrun.jobs j
left join flowrun.finished f on f.id = j.id
left join (
    select u.id, u.attempt, leases.worker_id, leases.claimed_at
    from flowrun.leases, unnest(leases.jobs, leases.attempts) as u (id, attempt)
) l on l.id = j.id
left join flowrun.ready r on r.queue = j.queue and r.priority = j.priority and r.id = j.id
left join flowrun.scheduled s on s.id = j.id
left join flowrun.workers w on w.id = l.worker_id
left join flowrun.gates g on g.id = j.id
left join flowrun.progress p on p.job_id = j.id
left join flowrun.cancels c on c.id = j.id
where j.kind in (0, 3, 4, 5);

-- The dead letter: handlers' jobs that failed for good and were neither retried nor discarded.
create view flowrun.failed_jobs as
select
    'default'::text as connection,
    split_part(j.queue, chr(31), 1) as queue,
    j.type,
    j.id,
    j.flow_id,
    j.name,
    j.args,
    j.priority,
    j.options,
    f.attempt,
    f.error ->> 'type' as error_type,
    f.error ->> 'message' as message,
    a.detail,
    a.traceback,
    a.worker,
    j.created_at,
    f.started_at,
    f.finished_at as failed_at
from flowrun.finished f
join flowrun.jobs j on j.id = f.id and j.kind = 0
left join flowrun.attempts a on a.job_id = f.id and a.attempt = f.attempt
where f.outcome = 2 and (f.error ->> 'discarded') is null;

create view flowrun.flow_status as
select
    fl.id,
    fl.root_id,
    fl.name,
    fl.tags,
    coalesce((array['succeeded', 'failed', 'cancelled', 'skipped'])[f.outcome], 'running') as state,
    fl.created_at,
    f.finished_at,
    f.error ->> 'message' as error,
    f.error ->> 'detail' as detail,
    fl.dispatched_by,
    (
        select count(*)
        from flowrun.jobs j
        join flowrun.flows inside on inside.id = j.flow_id
        where inside.root_id = fl.id and j.kind = 0
    ) as jobs
from flowrun.flows fl
left join flowrun.finished f on f.id = fl.id;
