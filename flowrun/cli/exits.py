"""What the exit codes mean."""

from __future__ import annotations

from typing import Final

from flowrun.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    EmbeddedPostgresError,
    FlowrunError,
    MigrationNeeded,
)

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
MIGRATE: Final = 4


class UsageError(ConfigurationError):
    """What was typed cannot work."""


def code_of(error: FlowrunError) -> int:
    """The exit code for an error."""
    if isinstance(error, ConfigurationError):
        return USAGE
    if isinstance(error, DatabaseUnavailable | EmbeddedPostgresError):
        return UNREACHABLE
    if isinstance(error, MigrationNeeded):
        return MIGRATE
    return FAILED
