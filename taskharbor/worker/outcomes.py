"""What the end of a task's code means for its job: an ``Ended`` for ``decide``, or a ``Replaced``.

Nothing in here runs a task, or raises: also of an exception that can't be printed and of a result
that can't be encoded comes an outcome.
"""

from __future__ import annotations

import logging
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from taskharbor import codec
from taskharbor.canvas import Canvas
from taskharbor.control import Cancel, Reject, Replace, Retry, Snooze, SoftTimeLimit, Steering
from taskharbor.decision import (
    CancelledItself,
    Failed,
    Lost,
    NotKnown,
    Outcome,
    Snoozed,
    Succeeded,
    Undecodable,
)
from taskharbor.errors import (
    ConfigurationError,
    DecodeError,
    InputNotReady,
    PayloadTooLarge,
    ResultNotStored,
    StoreError,
    TransactionEnded,
    UnknownWireVersion,
)
from taskharbor.flow.gathered import Gathered
from taskharbor.lease import Guard
from taskharbor.states import Reason

if TYPE_CHECKING:
    from taskharbor.context import JobContext
    from taskharbor.task import Task

logger = logging.getLogger(__name__)

_STORE_AWAY_SECONDS = (0.5, 1.5)
"""How long a job waits that the store failed before its code ran: it may be out of connections."""


class Ended(NamedTuple):
    """How an attempt ended, and the exception that ended it."""

    outcome: Outcome
    exception: BaseException | None = None


class Replaced(NamedTuple):
    """Instead of that: the task gave the work of ``job`` to ``canvas``, which is to be stored
    first."""

    job: JobContext
    canvas: Canvas[Any]
    exception: BaseException | None = None


class UnknownTask(LookupError):
    """Shown in the history of a job whose task this worker does not have."""


def not_known(app: str, task: str) -> Ended:
    """The app has no task of that name."""
    error = UnknownTask(
        f"this worker's app {app!r} has no task {task!r}; import the module that defines "
        "it in the app that the worker loads, or deploy the code that has it"
    )
    return Ended(NotKnown(failure(error)))


def unread(error: Exception, rng: Random) -> Ended | None:
    """What it means for a job that it could not be read; None for what only a bug of ours raises
    there."""
    match error:
        case UnknownWireVersion():
            return Ended(NotKnown(failure(error), Reason.UNKNOWN_VERSION), error)
        case DecodeError():
            return Ended(Undecodable(failure(error)), error)
        case InputNotReady():
            return Ended(Failed(failure(error)), error)
        case ResultNotStored() | PayloadTooLarge():
            return Ended(Failed(failure(error), retryable=False), error)
        case StoreError():
            logger.warning("what a job takes from its flow could not be read: %s", error)
            return Ended(Snoozed(rng.uniform(*_STORE_AWAY_SECONDS)), error)
    return None


def returned(task: Task[..., Any], job: JobContext, value: object) -> Ended | Replaced:
    if isinstance(value, Canvas):
        return Replaced(job, value)
    if not task.options.store_result:
        return Ended(Succeeded(None))
    if type(value) is Gathered:
        return Ended(Succeeded(value.encode()))
    try:
        result = codec.encode(value, limit=task.options.max_result_bytes, what="result")
    except BaseException as error:  # noqa: BLE001 - encoding reads attributes of the user's classes
        failed = Failed(failure(error), Reason.UNENCODABLE_RESULT, retryable=False)
        return Ended(failed, error)
    return Ended(Succeeded(result))


def raised(task: Task[..., Any], job: JobContext, error: BaseException) -> Ended | Replaced:
    error = _steering(error)
    match error:
        case Retry():
            shown = error.__cause__ or error
            return Ended(Failed(failure(shown), Reason.RETRY_ASKED, delay=error.delay), error)
        case Reject():
            return Ended(Failed(failure(error), Reason.REJECTED, retryable=False), error)
        case Replace():
            return Replaced(job, error.canvas, error)
        case Snooze():
            return Ended(Snoozed(error.delay), error)
        case Cancel():
            # What an operator asked for, and the task heeded, is the operator's doing.
            reason = Reason.OPERATOR if job.cancelled else Reason.TASK
            return Ended(CancelledItself(failure(error), reason), error)
        case _:
            reason = Reason.TIMED_OUT if isinstance(error, SoftTimeLimit) else Reason.RAISED
            return Ended(Failed(failure(error), reason, task.options.retries(error)), error)


def _steering(error: BaseException) -> BaseException:
    """The Steering inside groups of one, which asyncio.TaskGroup makes of it; else ``error``."""
    inner = error
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    return inner if isinstance(inner, Steering) else error


def replaced_in_transaction(task: Task[..., Any]) -> Ended:
    error = ConfigurationError(
        f"{task.name} is transactional, and its transaction can't commit with a flow that has yet "
        "to run; enqueue the flow with connection=, or drop transactional=True"
    )
    return Ended(Failed(failure(error), retryable=False), error)


def not_committed(
    task: Task[..., Any], job: JobContext, error: Exception, *, begun: bool, rng: Random
) -> Ended | Replaced:
    """Why a transaction did not end as it should, and what that makes of its attempt."""
    if isinstance(error, TransactionEnded | ConfigurationError):
        return Ended(Failed(failure(error), retryable=False), error)
    if isinstance(error, StoreError):
        if not begun:
            logger.warning("a transactional job could not begin: %s", error)
            return Ended(Snoozed(rng.uniform(*_STORE_AWAY_SECONDS)), error)
        # Whatever the task did is undone: as if it had not started, but for the count of losses,
        # which ends a job whose own statements break the connection again and again.
        return Ended(Lost(failure(error), started=False, guard=Guard.VALID), error)
    # A lost lease among others: the store refuses what is made of that.
    return raised(task, job, error)


def failure(error: BaseException) -> bytes:
    """``error`` as the job's history shows it, encoded."""
    try:
        return codec.Failure.of(error).encode()
    except Exception:  # noqa: BLE001 - out of memory or stack: the class is all we can name
        return codec.Failure(type(error).__name__, type(error).__module__, "").encode()
