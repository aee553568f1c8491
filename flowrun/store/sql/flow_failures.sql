-- The jobs because of which a flow did not succeed, those of the flows inside it included. Callbacks (what waits for
-- the end of its own flow) are not among them: they came after it.
--   $1 uuid flow
with recursive inside (id) as (
    select $1::uuid
    union all
    select f.id from inside join flowrun.finished f on f.spoils = inside.id join flowrun.jobs j on j.id = f.id
    where j.kind = 1
)
select j.id, j.name, f.outcome, f.error
from inside
join flowrun.finished f on f.spoils = inside.id
join flowrun.jobs j on j.id = f.id
where j.kind in (0, 3, 5)
and not exists (select from flowrun.edges ended where ended.parent_id = inside.id and ended.child_id = j.id)
order by f.finished_at
