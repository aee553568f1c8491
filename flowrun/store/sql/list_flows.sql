-- Outermost flows, the newest first: read back from the newest, so a filter that few pass reads far.
--   $1 text state  $2 text name  $3 text tag  $4, $5 timestamptz dispatched from and before  $6 uuid only those older than
--   this flow  $7 integer limit; each but the last may be null
-- Index: flows_pkey, backwards. Locks: none.
select fl.id, fl.name, fl.tags, fl.state, fl.created_at, fl.finished_at, fl.detail, fl.dispatched_by
from flowrun.flow_status fl
where
    fl.id = fl.root_id
    and ($1::text is null or fl.state = $1)
    and ($2::text is null or fl.name = $2)
    and ($3::text is null or $3 = any(fl.tags))
    and ($4::timestamptz is null or fl.created_at >= $4)
    and ($5::timestamptz is null or fl.created_at < $5)
    and ($6::uuid is null or fl.id < $6)
order by fl.id desc
limit $7
