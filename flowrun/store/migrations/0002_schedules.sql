-- What is dispatched again and again. A tick is taken by locking its schedule's row and moving `next_at` on, in the
-- transaction that writes the jobs.
create table flowrun.schedules (
    key text collate "C" primary key,
    cron text,
    every_us bigint check (every_us > 0),  -- or every so many microseconds
    timezone text not null default 'UTC',
    starts_at timestamptz,
    ends_at timestamptz,
    overlap text not null default 'allow' check (overlap in ('allow', 'skip', 'queue', 'cancel')),
    catchup text not null default 'none' check (catchup in ('none', 'last', 'all')),
    kind smallint not null check (kind in (0, 1)),  -- 0 a job, 1 a flow
    name text not null,  -- the job's type, or the flow's name
    template jsonb not null,  -- see core/template.py
    paused boolean not null default false,
    next_at timestamptz,  -- the next tick to be taken; null: there is none any more
    waits_for uuid,  -- the run that has to end before that
    last_at timestamptz,  -- the last tick that was dispatched ...
    last_id uuid,  -- ... as this job or flow
    dispatched bigint not null default 0,
    skipped bigint not null default 0,  -- ticks left out because of `overlap`
    created_at timestamptz not null default now(),
    changed_at timestamptz not null default now(),
    check ((cron is null) <> (every_us is null)),
    check (waits_for is null or next_at is not null)
);
create index schedules_next_at on flowrun.schedules (next_at)
where next_at is not null and waits_for is null and not paused;
create index schedules_waits_for on flowrun.schedules (waits_for) where waits_for is not null and not paused;
