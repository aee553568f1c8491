-- Outermost flows that pass a filter, the oldest first.
--   $1 text state  $2 text name  $3 text tag  $4, $5 timestamptz dispatched from and before; each but the first may be null
-- Result: ids.
-- Locks: none.
select fl.id
from flowrun.flows fl
left join flowrun.finished f on f.id = fl.id
where
    fl.id = fl.root_id
    and $1 = coalesce((array['succeeded', 'failed', 'cancelled', 'skipped'])[f.outcome], 'running')
    and ($2::text is null or fl.name = $2)
    and ($3::text is null or $3 = any(fl.tags))
    and ($4::timestamptz is null or fl.created_at >= $4)
    and ($5::timestamptz is null or fl.created_at < $5)
order by fl.id
