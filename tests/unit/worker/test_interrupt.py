"""The soft limit strikes in the attempt that it is meant for, or nowhere."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from random import Random

import pytest

from taskharbor.app import TaskHarbor
from taskharbor.control import SoftTimeLimit
from taskharbor.lease import Reservation
from taskharbor.states import Reason
from taskharbor.worker.attempt import Attempt, Station
from taskharbor.worker.executor import Executor
from taskharbor.worker.held import Held
from taskharbor.worker.interrupt import SIGNAL, Interrupter
from taskharbor.worker.settler import Settler
from taskharbor.worker.table import SharedTable, boot_time
from taskharbor.worker.waker import Alarm
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def station() -> Iterator[Station]:
    app = TaskHarbor("memory://")
    alarm = Alarm()
    with SharedTable(1, 1) as table:
        yield Station(
            app.driver, "holder", Settler(), table.child(0), alarm, slots=1, lease_seconds=30.0
        )
    alarm.close()


@pytest.fixture
def interrupter(station: Station) -> Iterator[Interrupter]:
    before = signal.getsignal(SIGNAL)
    yield Interrupter(station.attempts)
    signal.signal(SIGNAL, before)


def attempt_at(station: Station, job: Reservation) -> Attempt:
    attempt = Attempt(station, Held(job, boot_time() + 30.0), 0, boot_time())
    station.attempts[0] = attempt
    return attempt


def reserve(app: TaskHarbor, task: str, fence: int) -> Reservation:
    message = app.tasks[task].message((), {})
    return Reservation(message.id, "default", task, message.body, fence, 1, 0, 0, 0.0, 0.0, 30.0)


def test_a_signal_for_another_attempt_or_none_does_nothing(
    station: Station, interrupter: Interrupter
) -> None:
    interrupter.fire(7)
    attempt = attempt_at(station, reserve_noop(8))
    strikes: list[int] = []
    attempt.interrupt = lambda: strikes.append(8)
    interrupter.fire(7)
    assert strikes == []
    interrupter.fire(8)
    interrupter.fire(8)
    assert strikes == [8], "once"


def test_a_signal_outside_of_the_tasks_code_does_nothing(
    station: Station, interrupter: Interrupter
) -> None:
    attempt_at(station, reserve_noop(8))
    interrupter.fire(8)  # the attempt's interrupt is None here


def test_a_limit_that_passes_before_the_tasks_code_strikes_when_that_begins(
    station: Station, interrupter: Interrupter
) -> None:
    app = TaskHarbor("memory://")
    started: list[int] = []

    @app.task(name="late")
    def late() -> None:
        started.append(1)

    job = reserve(app, "late", 8)
    attempt = attempt_at(station, job)
    attempt.interrupted = True  # what the heartbeat thread does before it fires
    interrupter.fire(8)
    assert Executor(app).run(job, attempt).reason is Reason.TIMED_OUT
    assert started == []


class Hail:
    """A thread that fires at whatever runs right then, again and again."""

    def __init__(self, station: Station, interrupter: Interrupter) -> None:
        self.shots = 0
        self._station = station
        self._interrupter = interrupter
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        rng = Random(11)
        while not self._stop.wait(rng.random() * 0.0002):
            attempt = self._station.attempts[0]
            if attempt is not None:
                self.shots += 1
                self._interrupter.fire(attempt.fence)

    def __enter__(self) -> Hail:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def make_short_tasks(app: TaskHarbor) -> None:
    @app.task(name="spin")
    def spin() -> int:
        return sum(number * number for number in range(40))

    @app.task(name="cleans")
    def cleans() -> None:
        try:
            for _ in range(20):
                time.sleep(0)
        except SoftTimeLimit:
            for _ in range(20):
                time.sleep(0)
            raise


def test_no_strike_ever_hits_our_own_code(station: Station, interrupter: Interrupter) -> None:
    """Thousands of short attempts in a hail of signals: every attempt ends as a success or as timed
    out, and nothing escapes."""
    app = TaskHarbor("memory://")
    make_short_tasks(app)
    executor = Executor(app)
    ended = {Reason.SUCCEEDED: 0, Reason.TIMED_OUT: 0}
    enough_at = time.monotonic() + 4.0
    fence = 0
    with Hail(station, interrupter) as hail:
        # On a busy machine the hail takes its time.
        while (
            time.monotonic() < enough_at or min(ended.values()) <= 100 or hail.shots <= 1000
        ) and time.monotonic() < enough_at + PATIENCE_SECONDS:
            fence += 1
            job = reserve(app, "spin" if fence % 3 else "cleans", fence)
            settlement = executor.run(job, attempt_at(station, job))
            station.attempts[0] = None
            assert settlement.fence == fence
            ended[settlement.reason] += 1
    assert min(ended.values()) > 100, ended
    assert hail.shots > 1000


def reserve_noop(fence: int) -> Reservation:
    app = TaskHarbor("memory://")

    @app.task(name="noop")
    def noop() -> None: ...

    return reserve(app, "noop", fence)
