-- How long what has ended is kept, and how far the workers are with removing what is kept no longer.

-- The most special rule counts: a job's own (jobs.options), its type's, its queue's, its flow's by name, everybody's.
create table flowrun.retention (
    scope text not null check (scope in ('all', 'flow', 'queue', 'type')),
    name text not null,  -- of the flow, the queue or the type; '' for all
    outcome smallint not null check (outcome between 1 and 4),
    seconds double precision not null check (seconds >= 0),  -- from the end; 'infinity': for ever
    primary key (scope, name, outcome),
    check ((scope = 'all') = (name = ''))
);
insert into flowrun.retention (scope, name, outcome, seconds)
values ('all', '', 1, 604800), ('all', '', 2, 2592000), ('all', '', 3, 604800), ('all', '', 4, 604800);

-- Whose turn it is to prune, and where: one row, locked for each small step, so that workers take turns.
create table flowrun.pruning (
    id smallint primary key default 1 check (id = 1),
    own boolean not null default true,  -- a pass looks first at what has a retention of its own, then at all that is old
    mark uuid not null default '00000000-0000-0000-0000-000000000000',  -- looked at up to here
    due_at timestamptz not null default now(),  -- the next step
    began_at timestamptz not null default now()  -- the pass
);
insert into flowrun.pruning default values;

-- Jobs and flows that say themselves how long they are kept. Most do not, and have no entry.
create index jobs_retention on flowrun.jobs (id) where options ? 'retention';

-- Keys that are held for a time may outlive what they were given to.
create index keys_expires_at on flowrun.keys (expires_at) where expires_at is not null;
