-- Attempts that began of jobs which must not run twice (on_lost="fail"), written before their handlers are called. Other
-- jobs have no row. It counts as long as the job stands in that lease.
create table flowrun.begun (
    job_id uuid primary key,
    worker_id uuid not null,
    n bigint not null,
    begun_at timestamptz not null default now()
);

-- What is known of a type of jobs besides its name. Most have no row here.
create table flowrun.types (
    name text collate "C" primary key,
    paused boolean not null default false,
    changed_at timestamptz not null default now()
);

alter table flowrun.workers
add column heeds_types boolean not null default false;  -- whether it begins no job of a paused type (an older version does)

-- So that every table has a primary key: logical replication refuses updates and deletes without one.
alter table flowrun.starts add column id bigint generated always as identity primary key;
