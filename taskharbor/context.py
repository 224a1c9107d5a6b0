"""What a running task can know and say: ``current_job()``.

A :class:`JobContext` stands on the :class:`Control` of whoever runs the attempt: a worker's child,
or a test. It belongs to the attempt's thread or asyncio task and what those start with a copied
context; it is not for other threads.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from taskharbor import codec, defaults
from taskharbor.control import Cancel, Replace, SoftTimeLimit
from taskharbor.errors import ConfigurationError, NoCurrentJob
from taskharbor.lease import Reservation
from taskharbor.message import Call

if TYPE_CHECKING:
    from taskharbor.canvas import Canvas
    from taskharbor.drivers.base import Transaction

__all__ = ["Control", "JobContext", "SoftTimeLimit", "current_job"]


class Control(Protocol):
    """An attempt's line to whoever runs it. One object per attempt.

    The executor calls ``begin`` once, when it has read the job's envelope and before it touches
    the payload, and sets ``interrupt`` while user code runs in a thread that may be interrupted.
    """

    deadline: float | None
    """When the soft limit strikes, by the store's clock; None: no limit, or not begun."""

    interrupt: Callable[[], None] | None
    """Ends the attempt as timed out by raising in the calling thread: so only a signal handler in
    the thread of ``run()`` may call it. None whenever raising there would hit our own code; a
    handler that finds None does nothing."""

    interrupted: bool
    """The soft limit has passed and was signalled. Looked at by the executor once ``interrupt`` is
    set: the signal may have come while the payload was still being decoded."""

    urgent: bool
    """Set by the executor before user code runs: the settlement must be in the store before
    anything else is started, since running this job again would be worse than waiting."""

    settled: bool
    """Set by the executor when the settlement it returns is in the store already."""

    @property
    def cancelled(self) -> bool:
        """Cancel was requested, or the lease is lost: nobody wants the outcome any more."""
        ...

    def begin(self, timeout: float | None) -> None:
        """The attempt starts now: note it where a crash can't erase it, set ``deadline``."""
        ...

    def now(self) -> float:
        """The store's clock, as well as it is known here."""
        ...

    def save(self, value: bytes) -> None:
        """Keep ``value`` for this and later attempts. Raises LeaseError when the lease is lost."""
        ...

    def progress(self, value: bytes) -> None:
        """Publish ``value``. Raises LeaseError when the lease is lost."""
        ...


T = TypeVar("T")

_UNREAD: Any = object()
_current: ContextVar[JobContext] = ContextVar("taskharbor_job")
enter = _current.set
"""Make a job the current one in the context that this is called in."""


def current_job() -> JobContext:
    """The job that this code runs in.

    A task that is called directly, as a plain function, has one too: it answers for a first attempt
    without a limit, and what is saved or published goes nowhere. Raises NoCurrentJob outside of any
    task.
    """
    try:
        return _current.get()
    except LookupError:
        raise NoCurrentJob(
            "current_job() was called outside of a task; call it from a task's function, or from "
            "what that calls in the same thread"
        ) from None


def in_job() -> bool:
    return _current.get(None) is not None


def run_as(job: JobContext, call: Callable[[], T]) -> T:
    """``call()``, with ``job`` as the current one meanwhile."""
    token = _current.set(job)
    try:
        return call()
    finally:
        _current.reset(token)


async def await_as(job: JobContext, coroutine: Awaitable[T]) -> T:
    """``run_as()`` for a coroutine."""
    token = _current.set(job)
    try:
        return await coroutine
    finally:
        _current.reset(token)


class JobContext:
    """One attempt at one job, as its task sees it. Times are seconds since the epoch by the
    store's clock."""

    __slots__ = ("_call", "_control", "_job", "_max_saved", "_saved", "transaction")

    def __init__(
        self,
        job: Reservation,
        call: Call,
        control: Control,
        max_saved: int | None = defaults.MAX_RESULT_BYTES,
    ) -> None:
        self._job = job
        self._call = call
        self._control = control
        self._max_saved = max_saved
        self._saved = _UNREAD
        self.transaction: Transaction | None = None

    def __repr__(self) -> str:
        return f"<JobContext {self.task} id={self.id} attempt={self.attempt}>"

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def task(self) -> str:
        return self._job.task

    @property
    def queue(self) -> str:
        return self._job.queue

    @property
    def priority(self) -> int:
        return self._job.priority

    @property
    def attempt(self) -> int:
        """Counts from 1 and includes this one."""
        return self._job.attempt

    @property
    def max_attempts(self) -> int:
        return self._call.policy.max_attempts

    @property
    def retries(self) -> int:
        """Attempts before this one."""
        return self._job.attempt - 1

    @property
    def losses(self) -> int:
        """Earlier attempts that ended with their worker."""
        return self._job.losses

    @property
    def fence(self) -> int:
        """Larger than that of every earlier attempt of any job: hand it to whatever the task
        writes to, so that a stale attempt can be refused there too."""
        return self._job.fence

    @property
    def enqueued_at(self) -> float:
        return self._job.enqueued_at

    @property
    def headers(self) -> Mapping[str, Any]:
        return self._call.headers

    @property
    def timeout(self) -> float | None:
        return self._call.timeout

    @property
    def deadline(self) -> float | None:
        """When the soft limit strikes; None: no limit."""
        return self._control.deadline

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the outcome any more. A task that runs long should look now and
        then, or call :meth:`check`."""
        return self._control.cancelled

    @property
    def connection(self) -> Any:
        """The open transaction of a transactional task, which its function gets as its first
        argument: for code further down. Raises ConfigurationError in any other task."""
        if self.transaction is None:
            raise ConfigurationError(
                f"{self.task} has no transaction here; declare it with "
                "@app.task(transactional=True), and let a worker run it"
            )
        return self.transaction.connection

    def now(self) -> float:
        """The store's clock, as well as it is known here; what ``deadline`` is measured by."""
        return self._control.now()

    def check(self) -> None:
        """Raise Cancel if the job was cancelled, SoftTimeLimit if its time is over.

        In a thread pool this is the only way for a limit to reach the task's code.
        """
        control = self._control
        if control.cancelled:
            raise Cancel("cancelled while it ran")
        if control.deadline is not None and control.now() >= control.deadline:
            raise SoftTimeLimit

    def progress(self, fraction: float, message: str = "") -> None:
        """Publish how far the job is, from 0 to 1. Raises LeaseError when the lease is lost."""
        if not math.isfinite(fraction):
            raise ValueError(f"progress is {fraction!r}; use a fraction from 0 to 1")
        shown = [min(max(float(fraction), 0.0), 1.0), codec.clean_text(message)]
        self._control.progress(
            codec.encode(shown, limit=defaults.MAX_PROGRESS_BYTES, what="progress")
        )

    @property
    def saved(self) -> Any:
        """What this or an earlier attempt saved last; None if nothing was."""
        if self._saved is _UNREAD:
            stored = self._job.saved
            self._saved = None if stored is None else codec.decode(stored)
        return self._saved

    def replace(self, canvas: Canvas[Any]) -> NoReturn:
        """End this attempt, and let the job come to what ``canvas``, a signature or flow, comes to;
        the same as returning it.

        The flow is stored with the attempt's end, or not at all. The job waits for it without a
        worker, keeps its attempts, and is dead or cancelled if the flow is; what waits for the job
        waits for all of it.
        """
        raise Replace(canvas)

    def save(self, value: Any) -> None:
        """Keep ``value`` with the job, replacing what was saved: a later attempt finds it in
        ``saved``.

        Fenced: raises LeaseError, and keeps nothing, when the lease is lost. Raises EncodeError.
        """
        self._control.save(codec.encode(value, limit=self._max_saved, what="saved value"))
        self._saved = value


class Detached:
    """The control of a task that is called directly: no store, no limit, no lease."""

    __slots__ = ("deadline", "interrupt", "settled", "urgent")

    cancelled = False
    interrupted = False

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.interrupt: Callable[[], None] | None = None
        self.urgent = False
        self.settled = False

    def begin(self, timeout: float | None) -> None: ...

    def now(self) -> float:
        return 0.0

    def save(self, value: bytes) -> None: ...

    def progress(self, value: bytes) -> None: ...


def detached(task: str, queue: str) -> JobContext:
    """The job of a task that is called directly."""
    job = Reservation(
        id="detached",
        queue=queue,
        task=task,
        body=b"",
        fence=0,
        attempt=1,
        losses=0,
        priority=0,
        enqueued_at=0.0,
        reserved_at=0.0,
        lease_expires_at=math.inf,
    )
    return JobContext(job, Call(b"", None), Detached())
