"""Every error that TaskHarbor raises, in one tree.

TaskHarborError
 ├── ConfigurationError        a setting, URL or option that can't work
 │    └── UnknownDriver        no driver is registered for the URL's scheme
 ├── InvalidJob                a message that must not be stored (ValueError too)
 ├── InvalidCall               arguments that do not fit the task's signature (TypeError too)
 ├── NoCurrentJob              current_job() outside of a task (LookupError too)
 ├── TransactionEnded          a transactional task committed or rolled back by itself
 ├── InvalidLease              a lease of impossible length (ValueError too)
 ├── InvalidCursor             a list cursor that this store did not hand out (ValueError too)
 ├── CodecError
 │    ├── EncodeError          a value that can't travel
 │    │    └── PayloadTooLarge
 │    └── DecodeError          bytes that are not what they should be
 │         └── UnknownWireVersion
 ├── JobError                  about one job; has ``job_id``
 │    ├── JobNotFound
 │    ├── JobNotRunning
 │    ├── LeaseError
 │    │    ├── LeaseMismatch   somebody else's lease, or a stale one
 │    │    └── LeaseExpired
 │    ├── NotInDeadLetterQueue
 │    ├── KeyHeld              another job has the idempotency key now
 │    ├── ResultNotStored
 │    ├── ResultTimeout        the job is not finished yet (TimeoutError too)
 │    ├── JobCancelled         the job was cancelled; it has no result
 │    ├── TaskFailed           the job is dead; carries the remote traceback
 │    └── InputNotReady        what the job takes from its flow is not there (any more)
 └── StoreError                the store can't do what was asked
      ├── StoreUnavailable     unreachable for now: retrying is right
      ├── StoreReadOnly
      ├── StoreFull
      └── SchemaMismatch       written by another version of TaskHarbor

Messages say what happened, to what, and what to do next.
"""

from __future__ import annotations

from typing import Any


class TaskHarborError(Exception):
    """Root of all errors raised by TaskHarbor."""


class ConfigurationError(TaskHarborError):
    """A setting, URL or option that can't work as given."""


class UnknownDriver(ConfigurationError):
    """No driver is registered for the scheme of a URL."""


class InvalidJob(TaskHarborError, ValueError):
    """A message that must not be stored: an option out of its range or of the wrong form."""


class InvalidCall(TaskHarborError, TypeError):
    """Arguments that do not fit the signature of the task's function."""


class NoCurrentJob(TaskHarborError, LookupError):
    """There is no current job: this code does not run inside a task."""


class TransactionEnded(TaskHarborError):
    """A transactional task ended its transaction by itself. What it committed stays; its job can
    neither be settled with that nor be run again, and is dead."""


class InvalidLease(TaskHarborError, ValueError):
    """A lease length that is not a positive, finite, bounded number of seconds."""


class InvalidCursor(TaskHarborError, ValueError):
    """A list cursor that this store did not hand out."""


class CodecError(TaskHarborError):
    """A value or some bytes that can't cross the wire."""


class EncodeError(CodecError, TypeError):
    """A value that can't be encoded; the message has the path to it."""


class PayloadTooLarge(EncodeError):
    """An encoded value larger than its limit; the message names the limit."""


class DecodeError(CodecError, ValueError):
    """Bytes that are corrupt, truncated, or do not fit the annotation they should fill."""


class UnknownWireVersion(DecodeError):
    """Bytes written by a newer version of TaskHarbor than this one."""


class JobError(TaskHarborError):
    """An error about one job."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id

    def __str__(self) -> str:
        # Not KeyError's, for an error that is one as well: that would quote the message.
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        # Python's own would call the class with the message alone.
        return restore, (type(self), self.args, self.__dict__)


def restore(kind: type[JobError], args: tuple[Any, ...], attributes: dict[str, Any]) -> JobError:
    """A JobError from a pickle."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class JobNotFound(JobError, LookupError):
    """The store holds no such job: it never did, it was deleted, or its retention is over."""


class JobNotRunning(JobError):
    """The job has no lease to settle or extend."""


class LeaseError(JobError):
    """The lease that was shown does not give the right to do this."""


class LeaseMismatch(LeaseError):
    """The fence is not the job's current one: another attempt owns the job."""


class LeaseExpired(LeaseError):
    """The lease ran out before this call; the attempt will be reclaimed."""


class NotInDeadLetterQueue(JobError):
    """The operation is only for dead jobs, and this job is not dead."""


class KeyHeld(JobError):
    """Another job holds this job's idempotency key now."""


class ResultNotStored(JobError):
    """The job ran, or will run, with ``store_result=False`` or a retention of 0: no result is
    kept."""


class ResultTimeout(JobError, TimeoutError):
    """The job did not finish in the time given to ``get()``. It goes on; ask again."""


class JobCancelled(JobError):
    """The job was cancelled (by an operator, by its task, or because it expired)."""


class TaskFailed(JobError):
    """The job is dead. ``remote_traceback`` is the worker's traceback text."""

    def __init__(
        self, message: str, *, job_id: str, error_type: str = "", remote_traceback: str = ""
    ) -> None:
        super().__init__(message, job_id=job_id)
        self.error_type = error_type
        self.remote_traceback = remote_traceback


class InputNotReady(JobError):
    """A job of a flow was started, and a job whose result it takes has not succeeded: it was put
    back in line meanwhile. Another attempt may find it."""


class StoreError(TaskHarborError):
    """The store can't do what was asked."""


class StoreUnavailable(StoreError, ConnectionError):
    """The store is unreachable for now. Whether the last request was applied is unknown."""


class StoreReadOnly(StoreError):
    """The store can be read but not written: file permissions, a replica, a standby."""


class StoreFull(StoreError):
    """The store has no room left. Nothing of the request was kept."""


class SchemaMismatch(StoreError):
    """The store was written by a version of TaskHarbor that this one can't work with."""
