"""No wake-up is lost, and none is taken by those who are busy."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from taskharbor.worker.table import boot_time
from taskharbor.worker.wake import Wake
from taskharbor.worker.waker import Alarm, Bed
from tests.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def wake() -> Iterator[Wake]:
    wake = Wake.create()
    yield wake
    wake.close()


@pytest.fixture
def bed(wake: Wake) -> Iterator[Bed]:
    bed = Bed(wake)
    yield bed
    bed.close()


def test_it_sleeps_until_the_time_is_over(bed: Bed) -> None:
    until = boot_time() + 0.05
    assert not bed.sleep(until, listen=True)
    assert boot_time() >= until


def test_a_time_in_the_past_is_no_sleep(bed: Bed) -> None:
    before = boot_time()
    assert not bed.sleep(before - 600.0, listen=True)
    assert boot_time() - before < PATIENCE_SECONDS


def test_a_wake_up_given_before_the_sleep_ends_it(bed: Bed, wake: Wake) -> None:
    wake.add()
    assert bed.sleep(None, listen=True)


def test_who_does_not_listen_takes_no_wake_up(bed: Bed, wake: Wake) -> None:
    wake.add()
    assert not bed.sleep(boot_time() + 0.05, listen=False)
    assert wake.take(), "still there for a sibling"


def test_a_nudge_between_the_decision_and_the_sleep_is_not_lost(bed: Bed) -> None:
    bed.occupied = True
    bed.nudge()
    assert not bed.sleep(None, listen=False)
    assert not bed.occupied


def test_a_nudge_wakes_a_sleeper(bed: Bed) -> None:
    bed.occupied = True
    nudger = threading.Timer(0.05, bed.nudge)
    nudger.start()
    began = boot_time()
    assert not bed.sleep(began + 600.0, listen=True)
    assert boot_time() - began < PATIENCE_SECONDS
    nudger.join()


def test_nudging_who_is_awake_writes_nothing(bed: Bed) -> None:
    bed.nudge()
    assert not bed.sleep(boot_time() + 0.02, listen=False)
    before = boot_time()
    assert not bed.sleep(before + 0.05, listen=False), "no old nudge is left over"
    assert boot_time() >= before + 0.05


def test_of_many_sleepers_one_wakes_per_wake_up(wake: Wake) -> None:
    beds = [Bed(wake) for _ in range(5)]
    woken: list[bool] = []

    def rest(bed: Bed) -> None:
        woken.append(bed.sleep(boot_time() + 600.0, listen=True))

    threads = [threading.Thread(target=rest, args=(bed,)) for bed in beds]
    for bed, thread in zip(beds, threads, strict=True):
        bed.occupied = True
        thread.start()
    for number in (1, 2, 3):
        wake.add()
        wait_until(lambda number=number: len(woken) == number, what=f"sleeper {number}")  # type: ignore[misc]
    assert woken == [True] * 3
    for bed in beds:
        bed.nudge()
    for thread in threads:
        thread.join()
    assert woken.count(True) == 3
    for bed in beds:
        bed.close()


def test_sharing_adds_no_second_wake_up_to_one_that_waits(bed: Bed, wake: Wake) -> None:
    bed.share()
    bed.share()
    assert wake.take()
    assert not wake.take()


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    alarm = Alarm()
    yield alarm
    alarm.close()


def test_an_alarm_brought_forward_wakes_its_sleeper(alarm: Alarm) -> None:
    before = boot_time()
    alarm.deciding()  # the timer may be quicker than this thread is asleep
    threading.Timer(0.05, alarm.before, (before + 0.1,)).start()
    assert alarm.sleep(before + 600.0) == b"\0"
    assert boot_time() - before < PATIENCE_SECONDS


def test_what_is_due_later_anyway_does_not_wake_it(alarm: Alarm) -> None:
    alarm.wake_at = 100.0
    alarm.before(100.0)
    assert alarm.sleep(boot_time() + 0.01) == b""


def test_whatever_changes_while_it_decides_ends_the_next_sleep(alarm: Alarm) -> None:
    alarm.deciding()
    alarm.before(1e12)
    assert alarm.sleep(boot_time() + 600.0) == b"\0"


def test_a_signal_ends_the_sleep_with_its_number(alarm: Alarm) -> None:
    before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    signal.set_wakeup_fd(alarm.fd, warn_on_full_buffer=False)
    try:
        threading.Timer(0.05, signal.raise_signal, (signal.SIGUSR2,)).start()
        heard: list[bytes] = []
        sleeper = threading.Thread(target=lambda: heard.append(alarm.sleep(boot_time() + 600.0)))
        sleeper.start()
        sleeper.join()
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR2, before)
    assert heard == [bytes([signal.SIGUSR2])]


def test_a_thousand_nudges_do_not_block(alarm: Alarm) -> None:
    for _ in range(100_000):
        alarm.look_again()
    assert alarm.sleep(boot_time() + 600.0)
