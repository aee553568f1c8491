"""flowrun: the asyncio-native workflow engine for Python on PostgreSQL."""

from flowrun.app import Flowrun
from flowrun.client.dead import FailedJob
from flowrun.client.events import Event
from flowrun.client.explain import Explanation
from flowrun.client.gates import OpenGate
from flowrun.client.handlers import Handler
from flowrun.client.hooks import HookEvent
from flowrun.client.job_types import TypePause, TypeStatus
from flowrun.client.listing import FlowSummary, Trouble, WorkerStatus
from flowrun.client.queues import QueuePause, QueueStatus
from flowrun.client.retention import Pruned
from flowrun.client.runs import FlowRun, JobRun
from flowrun.client.schedules import ScheduleStatus
from flowrun.client.specs import Flow, JobSpec
from flowrun.client.statuses import Attempt, AuditEntry, FlowStatus, JobStatus
from flowrun.config import Settings
from flowrun.context import CallNext, Job, JobError, Parent, Transaction
from flowrun.core import backoff
from flowrun.core.flow import Node, any_of, at_least, race
from flowrun.core.options import JobOptions
from flowrun.encryption import Codec
from flowrun.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailable,
    Discard,
    DuplicateKey,
    EmbeddedPostgresError,
    FlowCancelled,
    FlowFailed,
    FlowrunError,
    InvalidArguments,
    InvalidFlow,
    JobCancelled,
    JobFailed,
    JobSkipped,
    LeaseLost,
    LineageTooDeep,
    MigrationNeeded,
    NotFound,
    NotPossible,
    NotReadable,
    NotStorable,
    PoolExhausted,
    ProcessDied,
    Retry,
    RunError,
    SchemaTooNew,
    Snooze,
    UnknownHandler,
)

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "AuditEntry",
    "CallNext",
    "Codec",
    "ConfigurationError",
    "DatabaseError",
    "DatabaseUnavailable",
    "Discard",
    "DuplicateKey",
    "EmbeddedPostgresError",
    "Event",
    "Explanation",
    "FailedJob",
    "Flow",
    "FlowCancelled",
    "FlowFailed",
    "FlowRun",
    "FlowStatus",
    "FlowSummary",
    "Flowrun",
    "FlowrunError",
    "Handler",
    "HookEvent",
    "InvalidArguments",
    "InvalidFlow",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobOptions",
    "JobRun",
    "JobSkipped",
    "JobSpec",
    "JobStatus",
    "LeaseLost",
    "LineageTooDeep",
    "MigrationNeeded",
    "Node",
    "NotFound",
    "NotPossible",
    "NotReadable",
    "NotStorable",
    "OpenGate",
    "Parent",
    "PoolExhausted",
    "ProcessDied",
    "Pruned",
    "QueuePause",
    "QueueStatus",
    "Retry",
    "RunError",
    "ScheduleStatus",
    "SchemaTooNew",
    "Settings",
    "Snooze",
    "Transaction",
    "Trouble",
    "TypePause",
    "TypeStatus",
    "UnknownHandler",
    "WorkerStatus",
    "any_of",
    "at_least",
    "backoff",
    "race",
]
