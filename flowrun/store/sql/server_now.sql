-- The moment it is, by the database's clock.
select clock_timestamp()
