-- The floor's tables: flowrun's layout without its features. State is the table an id stands in.
create schema floor;

create table floor.jobs (
    id uuid primary key,
    flow_id uuid,
    queue text not null,
    type text not null,
    args jsonb not null,
    priority smallint not null default 0,
    attempts smallint not null default 25,
    created_at timestamptz not null default now()
);
create table floor.edges (
    parent_id uuid not null,
    child_id uuid not null,
    condition smallint not null default 0,
    primary key (parent_id, child_id)
);
create table floor.blocked (id uuid primary key, need integer not null) with (fillfactor = 70);
create table floor.ready (
    queue text not null,
    priority smallint not null default 0,
    id uuid not null,
    attempt smallint not null default 0,
    primary key (queue, priority, id)
);
-- One row for a claimed batch; kept, so that the first claim's time can be read.
create table floor.leases (
    id bigint generated always as identity primary key,
    worker bigint not null,
    claimed_at timestamptz not null default clock_timestamp(),
    jobs uuid[] not null
);
create table floor.finished (
    id uuid primary key,
    outcome smallint not null,
    attempt smallint not null,
    result jsonb,
    finished_at timestamptz not null default clock_timestamp()
);
-- For single-row commits: what any durable step costs at the least.
create table floor.commits (id uuid primary key, result jsonb);
