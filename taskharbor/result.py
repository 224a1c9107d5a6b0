"""What a caller holds after an enqueue: the way back to the job, and to what became of it."""

from __future__ import annotations

import builtins
import math
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from taskharbor import apps, codec, defaults
from taskharbor.errors import (
    InvalidJob,
    JobCancelled,
    JobError,
    JobNotFound,
    KeyHeld,
    NotInDeadLetterQueue,
    ResultNotStored,
    ResultTimeout,
    TaskFailed,
    restore,
)
from taskharbor.message import check_seconds
from taskharbor.states import Reason, State

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.drivers.base import CancelVerdict, Outcome
    from taskharbor.info import JobInfo

R = TypeVar("R")

_GATHERED = b"\xc1"
"""How the result of a join begins (``flow.gathered``), and no encoded value."""

_WAIT_SECONDS = 10.0
"""One wait in the store; ``get()`` makes as many as it needs, so that Ctrl-C gets through."""


class AsyncResult(Generic[R]):
    """The result of one job, now or later.

    Equal to every other one of the same job and app. Pickles as the job's id and the app's name:
    where it is unpickled, an app of that name must exist.

    ``created`` False: the enqueue found this job there before, by id or idempotency key, and
    changed nothing; ``same_request`` then tells a replay from another request under the same key.
    """

    __slots__ = ("app", "created", "id", "same_request")

    def __init__(
        self, job_id: str, app: TaskHarbor, created: bool = True, same_request: bool = True
    ) -> None:
        self.id = job_id
        self.app = app
        self.created = created
        self.same_request = same_request

    def __repr__(self) -> str:
        return f"<AsyncResult {self.id}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AsyncResult):
            return NotImplemented
        return self.id == other.id and self.app.name == other.app.name

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.id, self.app.name, self.created, self.same_request)

    # --- the value ----------------------------------------------------------------------------

    def get(self, timeout: float | None = None) -> R:
        """What the task returned; waits for it, at most ``timeout`` seconds (None: as it takes).

        Raises TaskFailed when the job is dead, or one that it waited for in its flow (an instance
        of the exception's own type too, where that is a built-in one), JobCancelled, ResultTimeout,
        ResultNotStored, and JobNotFound when the job is gone: it never waits for a job that is not
        there. InvalidJob (a ValueError) for a ``timeout`` that is no number.
        """
        return self._value(self._wait(timeout))

    async def aget(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - get()'s name
        """``get()`` for async code."""
        outcome = await self.app.bridge.wait(self.app, self.id, _checked(timeout))
        if outcome is None:
            raise not_found(self.id)
        if _is_simple(outcome):
            return self._value(outcome)
        return await self.app.bridge.call(self._value, outcome)

    def wait(self, timeout: float | None = None) -> State:
        """Wait until the job is over; its state. Raises ResultTimeout and JobNotFound, and
        InvalidJob like ``get()``."""
        outcome = self._wait(timeout)
        if not outcome.state.terminal:
            raise _timed_out(self.id, outcome, timeout)
        return outcome.state

    def _wait(self, timeout: float | None) -> Outcome:
        seconds = _checked(timeout)
        ends = None if seconds is None else time.monotonic() + seconds
        while True:
            left = _WAIT_SECONDS if ends is None else ends - time.monotonic()
            outcome = self._outcome_within(min(max(left, 0.0), _WAIT_SECONDS))
            if outcome.state.terminal or left <= 0:
                return outcome

    def _outcome_within(self, seconds: float) -> Outcome:
        driver, ids = self.app.driver, (self.id,)
        found = driver.wait_results(ids, seconds) if seconds else driver.results(ids)
        if found[0] is None:
            raise not_found(self.id)
        return found[0]

    def _value(self, outcome: Outcome) -> R:
        if outcome.state is State.SUCCEEDED:
            if outcome.result is None:
                raise ResultNotStored(
                    f"job {self.id} succeeded, but its task keeps no results (store_result=False)",
                    job_id=self.id,
                )
            value: R = self._decoded(outcome.result)
            return value
        raise self._error(outcome)

    def _decoded(self, result: bytes) -> Any:
        """The stored value; of a join, the list that it stands for."""
        if result[:1] != _GATHERED:
            return codec.decode(result)
        from taskharbor.flow.gathered import Gathered
        from taskharbor.flow.inputs import as_flows, read_list

        gathered = Gathered.decode(result)
        if gathered is None:
            return codec.decode(result)
        return read_list(as_flows(self.app.driver), self.id, gathered)

    def _error(self, outcome: Outcome) -> Exception:
        if outcome.state is State.DEAD:
            return failed(self.id, outcome.reason, outcome.error)
        if outcome.state is State.CANCELLED:
            if outcome.reason is not Reason.UPSTREAM:
                return cancelled(self.id, outcome.reason)
            from taskharbor.flow.inputs import as_flows, exception_of

            return exception_of(as_flows(self.app.driver), self.id, outcome)
        return _timed_out(self.id, outcome, None)

    def exception(self) -> Exception | None:
        """What ``get()`` would raise now; None if the job succeeded. Raises JobNotFound."""
        outcome = self._outcome_within(0.0)
        return None if outcome.state is State.SUCCEEDED else self._error(outcome)

    # --- how the job stands -------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Raises JobNotFound."""
        return self._outcome_within(0.0).state

    def ready(self) -> bool:
        """Whether the job is over. Raises JobNotFound."""
        return self.state.terminal

    def successful(self) -> bool:
        """Whether the job is over and succeeded. Raises JobNotFound."""
        return self.state is State.SUCCEEDED

    def failed(self) -> bool:
        """Whether the job is dead. Raises JobNotFound."""
        return self.state is State.DEAD

    def info(self) -> JobInfo:
        """All that the store knows of the job, decoded. Raises JobNotFound."""
        from taskharbor.info import describe

        job = self.app.driver.get(self.id)
        if job is None:
            raise not_found(self.id)
        return describe(job)

    # --- steering it --------------------------------------------------------------------------

    def cancel(self) -> CancelVerdict:
        """Ask that the job does not run (any more).

        ``cancelled``: it waited, and will not start. ``requested``: it runs; its task finds
        ``current_job().cancelled`` set, and if it does not heed that and fails, it is not retried.
        ``finished``: too late. Raises JobNotFound.
        """
        from taskharbor.drivers.base import CancelVerdict

        verdict = self.app.driver.cancel((self.id,))[0]
        if verdict is CancelVerdict.NOT_FOUND:
            raise not_found(self.id)
        return verdict

    def revoke(self) -> CancelVerdict:
        """``cancel()`` by the name that Celery gave it."""
        return self.cancel()

    def requeue(self, *, delay: float = 0.0, reset_attempts: bool = True) -> None:
        """Put a dead job back in line, after ``delay`` seconds; with all its attempts, or with one
        more.

        Raises NotInDeadLetterQueue if it is not dead, KeyHeld if another job has its idempotency
        key now, JobNotFound, and InvalidJob for an impossible ``delay``.
        """
        from taskharbor.drivers.base import RequeueVerdict

        check_seconds("delay", delay, most=defaults.MAX_DELAY_SECONDS)
        driver = self.app.driver
        match driver.requeue((self.id,), delay=delay, reset_attempts=reset_attempts)[0]:
            case RequeueVerdict.NOT_FOUND:
                raise not_found(self.id)
            case RequeueVerdict.WRONG_STATE:
                raise NotInDeadLetterQueue(
                    f"job {self.id} is not dead, so it can't be requeued; enqueue another one",
                    job_id=self.id,
                )
            case RequeueVerdict.KEY_HELD:
                raise KeyHeld(
                    f"another job has the idempotency key of job {self.id} now; see to that one, "
                    "or forget() this one",
                    job_id=self.id,
                )

    def forget(self) -> bool:
        """Delete the job with its result. False: it is running and stays, or it is gone already."""
        from taskharbor.drivers.base import DeleteVerdict

        return self.app.driver.delete((self.id,))[0] is DeleteVerdict.DELETED


def _unpickle(job_id: str, app_name: str, created: bool, same_request: bool) -> AsyncResult[Any]:
    return AsyncResult(job_id, apps.find(app_name), created, same_request)


def _checked(timeout: object) -> float | None:
    """``timeout``; None if it is infinite. What is over already (0, negative) is one look."""
    if timeout is None or timeout == math.inf:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout != timeout:
        raise InvalidJob(f"timeout is {timeout!r}; use a number of seconds, or None to wait on")
    return timeout


# --- errors -----------------------------------------------------------------------------------


def not_found(job_id: str) -> JobNotFound:
    return JobNotFound(
        f"there is no job {job_id}: it was never enqueued here, was deleted, or ended longer ago "
        "than its task keeps records (keep_succeeded, keep_cancelled, keep_dead)",
        job_id=job_id,
    )


def cancelled(job_id: str, reason: Reason) -> JobCancelled:
    return JobCancelled(f"job {job_id} was cancelled ({reason}); it has no result", job_id=job_id)


def _is_simple(outcome: Outcome) -> bool:
    """Whether nothing more is to be read to know the value or the error."""
    gathered = outcome.result is not None and outcome.result[:1] == _GATHERED
    return not gathered and outcome.reason is not Reason.UPSTREAM


def _timed_out(job_id: str, outcome: Outcome, timeout: float | None) -> ResultTimeout:
    waited = "" if timeout is None else f" after {timeout:g} seconds"
    return ResultTimeout(
        f"job {job_id} is still {outcome.state}{waited}; it goes on, ask again later",
        job_id=job_id,
    )


class RemoteTraceback(Exception):
    """The worker's traceback, shown by Python as the cause of a TaskFailed."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def failed(job_id: str, reason: Reason, error: bytes | None) -> TaskFailed:
    """The error that ``get()`` raises for a dead job."""
    if error is None:
        return TaskFailed(f"job {job_id} is dead: {reason}", job_id=job_id)
    failure = codec.Failure.decode(error)
    kind = failure.type if failure.module == "builtins" else f"{failure.module}.{failure.type}"
    shown = f"{kind}: {failure.message}" if failure.message else kind
    prefix = "" if reason is Reason.RAISED else f" ({reason})"
    raised = _class_for(failure)(
        f"job {job_id} is dead{prefix}: {shown}",
        job_id=job_id,
        error_type=kind,
        remote_traceback=failure.traceback,
    )
    if failure.traceback:
        raised.__cause__ = RemoteTraceback(failure.traceback)
    return raised


def _class_for(failure: codec.Failure) -> type[TaskFailed]:
    """TaskFailed, or a class of it that ``except ValueError`` catches as well."""
    builtin = getattr(builtins, failure.type, None) if failure.module == "builtins" else None
    if not (isinstance(builtin, type) and issubclass(builtin, Exception)):
        # Nothing for SystemExit and its like: the caller's process is not meant.
        return TaskFailed
    return _combined(failure.type)


@cache
def _combined(name: str) -> type[TaskFailed]:
    builtin: type[Exception] = getattr(builtins, name)
    # StopIteration would end the caller's own generators. Types that demand more than a message
    # (UnicodeDecodeError, ExceptionGroup) are represented by the nearest base that does not.
    for base in builtin.__mro__:
        if base is Exception or issubclass(builtin, StopIteration | StopAsyncIteration):
            break
        try:
            combined = type(
                f"TaskFailed[{name}]",
                (TaskFailed, base),
                {
                    "__module__": TaskFailed.__module__,
                    "__doc__": f"A job is dead: its task raised {name}.",
                    "__reduce__": lambda self: (_restore, (name, self.args, vars(self))),
                },
            )
            combined("", job_id="")
        except TypeError:
            continue
        return combined
    return TaskFailed


def _restore(builtin: str, args: tuple[Any, ...], attributes: dict[str, Any]) -> JobError:
    return restore(_combined(builtin), args, attributes)
