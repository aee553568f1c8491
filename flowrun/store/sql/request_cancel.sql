-- Ask running jobs, or flows, to stop.
--   $1 uuid[] ids  $2 text reason  $3 text actor  $4 boolean harmless: does not spoil the flow
-- Locks: only what it inserts.
insert into flowrun.cancels (id, reason, actor, harmless)
select u.id, $2, $3, $4 from unnest($1::uuid[]) as u (id) order by u.id
on conflict (id) do nothing
