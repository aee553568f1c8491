-- Counters of jobs that wait again, or for more.
--   $1 uuid[] jobs  $2 integer[] need  $3 integer[] open
-- Locks: `blocked` rows by id.
insert into flowrun.blocked (id, need, open)
select u.id, u.need, u.open from unnest($1::uuid[], $2::integer[], $3::integer[]) as u (id, need, open) order by u.id
on conflict (id) do update set need = excluded.need, open = excluded.open
