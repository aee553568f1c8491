"""What is stored, and every statement that touches it. The only importer of asyncpg.

Functions that take a connection and values and return values: no loops, no clocks, no policy.
"""
