-- What time it is.
--   $1 timestamptz the moment it is; null: by the database's clock
select coalesce($1::timestamptz, now())
