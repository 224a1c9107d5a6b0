"""Who is told what, and that nobody who listens can break a job."""

import logging
from typing import Any

import pytest

from taskharbor import Cancel, Reject, Retry, Snooze, SoftTimeLimit, TaskHarbor, codec, testing
from taskharbor.lease import Reservation
from taskharbor.settlement import Settlement
from taskharbor.signals import AttemptEnded, AttemptStarted, JobEnqueued
from taskharbor.states import Move, Reason


@pytest.fixture
def app() -> TaskHarbor:
    return TaskHarbor("memory://")


def listen(app: TaskHarbor) -> list[tuple[str, Any]]:
    """Everything that any signal of ``app`` tells, with the signal's name."""
    told: list[tuple[str, Any]] = []
    for name in app.signals.__slots__:
        getattr(app.signals, name).connect(lambda event, name=name: told.append((name, event)))
    return told


def test_a_job_tells_its_story(app: TaskHarbor) -> None:
    @app.task(max_attempts=2, queue="q")
    def flaky() -> None:
        raise ValueError("no")

    told = listen(app)
    with testing.inline(app):
        result = flaky.delay()
    assert [name for name, _ in told] == ["enqueued", "started", "retried", "started", "dead"]
    enqueued, started, retried, _, dead = (event for _, event in told)
    assert enqueued == JobEnqueued(result.id, flaky.name, "q", created=True)
    assert isinstance(started, AttemptStarted)
    assert (started.job_id, started.attempt) == (result.id, 1)
    assert isinstance(retried, AttemptEnded)
    assert (retried.move, retried.reason, retried.attempt) == (Move.RETRY, Reason.RAISED, 1)
    assert retried.delay > 0
    assert isinstance(retried.exception, ValueError)
    assert (dead.move, dead.attempt) == (Move.DIE, 2)
    assert codec.Failure.decode(dead.error).message == "no"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (None, "succeeded"),
        (Reject("x"), "dead"),
        (Cancel("x"), "cancelled"),
        (Snooze(1), "snoozed"),
        (Retry(), "retried"),
        (SoftTimeLimit(), "retried"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_every_end_has_its_signal(app: TaskHarbor, error: BaseException | None, name: str) -> None:
    @app.task
    def end() -> None:
        if error is not None:
            raise error

    told = listen(app)
    with testing.memory(app) as jobs:
        end.delay()
        jobs.drain()
    assert [each for each, _ in told] == ["enqueued", "started", name]


def test_a_lost_attempt_is_told_as_lost_and_by_its_outcome(app: TaskHarbor) -> None:
    told = listen(app)
    job = Reservation("j", "q", "t", b"", 3, 1, 0, 0, 0.0, 0.0, 0.0)
    retry = Settlement.retry("j", 3, delay=0, error=None, reason=Reason.WORKER_LOST, loss=True)
    app.signals.attempt_ended(job, retry)
    assert [name for name, _ in told] == ["lost", "retried"]
    assert told[0][1].reason is Reason.WORKER_LOST
    app.signals.attempt_ended(job, Settlement.release("j", 3))
    assert len(told) == 2


@pytest.mark.parametrize(
    "error", [ValueError("handler"), Reject("no"), SoftTimeLimit(), SystemExit(3)]
)
def test_a_failing_handler_is_logged_and_disturbs_nobody(
    app: TaskHarbor, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    @app.task
    def fine() -> str:
        return "fine"

    heard: list[Any] = []

    @app.signals.succeeded.connect
    def break_down(event: AttemptEnded) -> None:
        raise error

    app.signals.succeeded.connect(heard.append)
    with caplog.at_level(logging.ERROR, "taskharbor.signals"), testing.inline(app):
        assert fine.delay().get() == "fine"
    assert len(heard) == 1
    assert "'succeeded'" in caplog.text
    assert type(error).__name__ in caplog.text


def test_handlers_connect_once_and_disconnect(app: TaskHarbor) -> None:
    heard: list[JobEnqueued] = []
    signal = app.signals.enqueued
    signal.connect(heard.append)
    signal.connect(heard.append)
    event = JobEnqueued("j", "t", "q", created=True)
    signal.send(event)
    assert heard == [event]
    signal.disconnect(heard.append)
    signal.disconnect(heard.append)
    signal.send(event)
    assert heard == [event]
    assert repr(signal) == "<Signal enqueued: 0 handlers>"


def test_a_handler_lives_as_long_as_it_is_connected(app: TaskHarbor) -> None:
    heard: list[str] = []
    app.signals.enqueued.connect(lambda event: heard.append(event.job_id))
    app.signals.enqueued.send(JobEnqueued("j", "t", "q", created=True))
    assert heard == ["j"]
