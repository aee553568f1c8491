-- What is under way comes and goes by the thousand a second, and its tables are small: to clear them away is short work
-- that should not be put off. With PostgreSQL's pauses of 2 ms it took longer than the minute in which as many rows died
-- again (60,000 jobs a second), so the tables grew.
alter table flowrun.ready set (autovacuum_vacuum_cost_delay = 0);
alter table flowrun.leases set (autovacuum_vacuum_cost_delay = 0);
alter table flowrun.blocked set (autovacuum_vacuum_cost_delay = 0);
