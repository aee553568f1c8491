-- Forget keys that are held no longer: whoever wants one takes it as new.
--   $1 integer at most so many
-- Result: how many.
-- Index: keys_expires_at. Locks: `keys` rows, skipping locked ones.
with gone as (
    delete from flowrun.keys
    where (scope, key) in (
        select scope, key from flowrun.keys where expires_at <= clock_timestamp()
        order by expires_at limit $1 for update skip locked
    )
    returning 1
)
select count(*) from gone
