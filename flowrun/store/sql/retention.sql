-- The rules by which things are kept.
-- Result: scope, name, outcome, seconds.
select scope, name, outcome, seconds from flowrun.retention order by scope, name, outcome
