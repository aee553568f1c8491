"""flowrun: the asyncio-native workflow engine for Python on PostgreSQL."""

from flowrun.app import Flowrun
from flowrun.client.handlers import Handler
from flowrun.client.runs import Attempt, FlowRun, FlowStatus, JobRun, JobStatus
from flowrun.client.specs import Flow, JobSpec
from flowrun.config import Settings
from flowrun.context import Job
from flowrun.core import backoff
from flowrun.core.flow import Node, any_of, at_least
from flowrun.core.options import JobOptions
from flowrun.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailable,
    Discard,
    EmbeddedPostgresError,
    FlowCancelled,
    FlowFailed,
    FlowrunError,
    InvalidArguments,
    InvalidFlow,
    JobCancelled,
    JobFailed,
    JobSkipped,
    MigrationNeeded,
    NotFound,
    Retry,
    RunError,
    SchemaTooNew,
    Snooze,
    UnknownHandler,
)

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "ConfigurationError",
    "DatabaseError",
    "DatabaseUnavailable",
    "Discard",
    "EmbeddedPostgresError",
    "Flow",
    "FlowCancelled",
    "FlowFailed",
    "FlowRun",
    "FlowStatus",
    "Flowrun",
    "FlowrunError",
    "Handler",
    "InvalidArguments",
    "InvalidFlow",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobOptions",
    "JobRun",
    "JobSkipped",
    "JobSpec",
    "JobStatus",
    "MigrationNeeded",
    "Node",
    "NotFound",
    "Retry",
    "RunError",
    "SchemaTooNew",
    "Settings",
    "Snooze",
    "UnknownHandler",
    "any_of",
    "at_least",
    "backoff",
]
