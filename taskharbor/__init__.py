"""TaskHarbor runs Python functions as durable background jobs."""

from taskharbor.app import TaskHarbor
from taskharbor.backoff import Delays, Exponential, Fixed
from taskharbor.context import JobContext, current_job
from taskharbor.control import Cancel, Reject, Retry, Snooze, SoftTimeLimit
from taskharbor.errors import (
    JobCancelled,
    JobNotFound,
    ResultNotStored,
    ResultTimeout,
    TaskFailed,
    TaskHarborError,
)
from taskharbor.flow import Graph, chain, chord, group
from taskharbor.flow.result import FlowResult, GroupResult
from taskharbor.middleware import Middleware
from taskharbor.result import AsyncResult
from taskharbor.signature import Signature
from taskharbor.states import State
from taskharbor.task import AsyncTask, SyncTask, Task
from taskharbor.transactional import TransactionalTask

__version__ = "0.1.0"

__all__ = [
    "AsyncResult",
    "AsyncTask",
    "Cancel",
    "Delays",
    "Exponential",
    "Fixed",
    "FlowResult",
    "Graph",
    "GroupResult",
    "JobCancelled",
    "JobContext",
    "JobNotFound",
    "Middleware",
    "Reject",
    "ResultNotStored",
    "ResultTimeout",
    "Retry",
    "Signature",
    "Snooze",
    "SoftTimeLimit",
    "State",
    "SyncTask",
    "Task",
    "TaskFailed",
    "TaskHarbor",
    "TaskHarborError",
    "TransactionalTask",
    "__version__",
    "chain",
    "chord",
    "current_job",
    "group",
]
