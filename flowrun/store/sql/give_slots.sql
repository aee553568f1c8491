-- A worker holds fewer slots than before, and forgets those of leases that have gone.
--   $1 uuid worker  $2 text[] names, $3 bigint[] leases and $4 integer[] how many it keeps as of that lease; 0: none, the
--   lease being gone
-- Index: slots_pkey. Locks: its own slots, skipping locked ones: those are being removed, by a claim that found them dead.
with mine as materialized (
    select s.row_at, kept.most
    from unnest($2::text[], $3::bigint[], $4::integer[]) as kept (name, n, most)
    cross join lateral (
        select ctid as row_at from flowrun.slots
        where slots.name = kept.name and slots.worker_id = $1 and slots.n = kept.n
        for update skip locked
    ) s
),
fewer as (
    update flowrun.slots set most = mine.most from mine where slots.ctid = mine.row_at and mine.most > 0
)
delete from flowrun.slots where ctid = any(array(select row_at from mine where most = 0))
