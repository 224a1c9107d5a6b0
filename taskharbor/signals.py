"""Telling who wants to know what happens to jobs: ``app.signals``.

    @app.signals.dead.connect
    def page_someone(event: AttemptEnded) -> None: ...

A handler is held strongly until ``disconnect()``: a lambda or a closure stays connected. It runs
at once, in the process and thread where the thing happened, between two jobs: keep it short. What
it raises is logged and changes nothing. A signal nobody listens to costs nothing.

An attempt's end is told when it is decided, just before the store is: a worker that has lost its
lease tells it too, and the store then refuses it. An attempt that ended with its process can't
tell anything: maintenance settles it, and its worker then tells ``lost``, and ``retried`` or
``dead``, in a process of its own. That is done once, as well as it can be: nobody tells it if that
worker stops at this moment, or if the maintenance that settled it has no worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from taskharbor.states import Move, Reason

if TYPE_CHECKING:
    from taskharbor.lease import Reservation
    from taskharbor.settlement import Settlement


class JobEnqueued(NamedTuple):
    """The store has the job. ``created`` False: it, or one with its key, was there before."""

    job_id: str
    task: str
    queue: str
    created: bool


class AttemptStarted(NamedTuple):
    """An attempt is about to run. ``fence`` grows with every attempt of any job."""

    job_id: str
    task: str
    queue: str
    attempt: int
    fence: int


class AttemptEnded(NamedTuple):
    """An attempt is over. ``delay``: seconds until the next one may start, after a retry.

    ``error`` is the encoded failure (``codec.Failure.decode``), ``exception`` the exception itself
    where it was raised in this process.
    """

    job_id: str
    task: str
    queue: str
    attempt: int
    fence: int
    move: Move
    reason: Reason
    delay: float
    error: bytes | None
    exception: BaseException | None

    @classmethod
    def of(
        cls, job: Reservation, settlement: Settlement, exception: BaseException | None = None
    ) -> AttemptEnded:
        return cls(
            job_id=job.id,
            task=job.task,
            queue=job.queue,
            attempt=job.attempt,
            fence=job.fence,
            move=settlement.move,
            reason=settlement.reason,
            delay=settlement.delay,
            error=settlement.error,
            exception=exception,
        )


E = TypeVar("E")
H = TypeVar("H", bound=Callable[..., object])


class Signal(Generic[E]):
    """One kind of event and who listens to it, in the order they connected."""

    __slots__ = ("handlers", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.handlers: tuple[Callable[[E], object], ...] = ()

    def __repr__(self) -> str:
        return f"<Signal {self.name}: {len(self.handlers)} handlers>"

    def connect(self, handler: Callable[[E], object]) -> Callable[[E], object]:
        """Call ``handler(event)`` from now on. Usable as a decorator; connecting twice is once."""
        if handler not in self.handlers:
            self.handlers = (*self.handlers, handler)
        return handler

    def disconnect(self, handler: Callable[[E], object]) -> None:
        """No more calls of ``handler``; nothing happens if it was not connected."""
        self.handlers = tuple(each for each in self.handlers if each != handler)

    def send(self, event: E) -> None:
        """Tell every handler. Raises nothing but KeyboardInterrupt: see the module's promise."""
        for handler in self.handlers:
            try:
                handler(event)
            except KeyboardInterrupt:
                raise  # the Ctrl-C of whoever enqueues; a worker's child never gets one
            except BaseException:  # a sys.exit() in a handler must not end a worker
                import logging

                logging.getLogger("taskharbor.signals").exception(
                    "a handler of the signal %r failed: %r", self.name, handler
                )


class Signals:
    """All signals of an app."""

    __slots__ = (
        "cancelled",
        "dead",
        "enqueued",
        "lost",
        "retried",
        "snoozed",
        "started",
        "succeeded",
    )

    def __init__(self) -> None:
        self.enqueued: Signal[JobEnqueued] = Signal("enqueued")
        self.started: Signal[AttemptStarted] = Signal("started")
        self.succeeded: Signal[AttemptEnded] = Signal("succeeded")
        self.retried: Signal[AttemptEnded] = Signal("retried")
        self.snoozed: Signal[AttemptEnded] = Signal("snoozed")
        self.dead: Signal[AttemptEnded] = Signal("dead")
        self.cancelled: Signal[AttemptEnded] = Signal("cancelled")
        self.lost: Signal[AttemptEnded] = Signal("lost")

    def attempt_ended(
        self, job: Reservation, settlement: Settlement, exception: BaseException | None = None
    ) -> None:
        """Send what ``settlement`` means; for a worker that was lost, ``lost`` as well."""
        if settlement.loss and self.lost.handlers:
            self.lost.send(AttemptEnded.of(job, settlement, exception))
        signal = self._of(settlement.move)
        if signal is not None and signal.handlers:
            signal.send(AttemptEnded.of(job, settlement, exception))

    def _of(self, move: Move) -> Signal[AttemptEnded] | None:
        match move:
            case Move.SUCCEED:
                return self.succeeded
            case Move.RETRY:
                return self.retried
            case Move.DIE:
                return self.dead
            case Move.CANCEL:
                return self.cancelled
            case Move.SNOOZE:
                return self.snoozed
            case _:
                return None
