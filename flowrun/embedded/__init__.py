"""A private PostgreSQL for development and tests, started on demand and shared by every process that uses it.

    with EmbeddedPostgres(".flowrun/postgres") as postgres:
        pool = await asyncpg.create_pool(postgres.dsn)

One server runs per directory. It stops by itself when the last handle is closed or its process is gone, however it
went. Linux and macOS; on Windows set ``FLOWRUN_DSN`` to a PostgreSQL of your own.

How it hangs together: ``handle`` is what users hold; ``launcher`` joins or starts a server under the locks of ``home``;
``keeper`` is the process that owns the server and watches the handles; ``cluster`` makes the data directory and the
command line; ``identity`` says as which user; ``binaries`` finds PostgreSQL; ``probe`` looks at what is running.
"""

from flowrun.embedded.handle import EmbeddedPostgres
from flowrun.embedded.locations import default_database, default_directory, directory_from_dsn

__all__ = ["EmbeddedPostgres", "default_database", "default_directory", "directory_from_dsn"]
