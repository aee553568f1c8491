"""Help for tests of programs that use flowrun: a pytest plugin with a real PostgreSQL."""
