-- What was set for this role or this database, by ALTER ROLE or ALTER DATABASE; a session of flowrun's sets its own over it.
-- Result: name, value; what is set for the role in the database, or for the role, before what is set for the database.
-- Locks: none.
select distinct on (split_part(one.setting, '=', 1))
    split_part(one.setting, '=', 1) as name,
    substr(one.setting, strpos(one.setting, '=') + 1) as value
from pg_db_role_setting s
cross join lateral unnest(s.setconfig) as one (setting)
where
    s.setrole in (0, (select oid from pg_roles where rolname = current_user))
    and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
order by 1, (s.setrole <> 0 and s.setdatabase <> 0) desc, s.setrole <> 0 desc
