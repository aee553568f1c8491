-- The verdict of a flow whose nodes can be compensated.
--   $1 uuid flow
select (options ->> 'verdict')::uuid as id from flowrun.jobs where id = $1 and options ? 'verdict'
