-- What workers tell of themselves.

alter table flowrun.workers
add column heard integer,  -- of `changes`: so many count for every job that it still begins; null: it does not say (an older version)
add column trouble jsonb;  -- what its last heartbeat complained of: [{"kind", "type", "job", "since"}]; null: nothing
