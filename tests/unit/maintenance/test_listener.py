"""The listener's thread, on a driver whose answers the test writes."""

import threading
import time
from collections.abc import Sequence
from random import Random
from typing import cast

from taskharbor.drivers.base import SCHEDULE, Capabilities, Driver
from taskharbor.maintenance.listener import Listener, ScheduleListener
from tests.waiting import wait_until


class Answers:
    """Says at once, ``times`` times, that a job may be ready, and then nothing more."""

    def __init__(self, times: int, *, schedule_hints: bool = False) -> None:
        self.left = times
        self.capabilities = Capabilities(schedule_hints=schedule_hints)
        self.waited_for: list[tuple[str, ...]] = []

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        self.waited_for.append(tuple(queues))
        if self.left > 0:
            self.left -= 1
        else:
            time.sleep(seconds)


def test_an_answer_right_after_a_hint_is_a_hint_as_well() -> None:
    """SQLite says it once: a hint that was dropped would cost the job up to 0.1 s."""
    hints: list[int] = []
    never = threading.Event()
    listener = Listener(
        cast("Driver", Answers(3)),
        ("default",),
        hint=lambda: hints.append(1),
        busy=never.is_set,
        rng=Random(0),
    )
    listener.start()
    try:
        wait_until(lambda: len(hints) == 3, what="a hint for each answer")
    finally:
        listener.stop()
        assert listener.join(90)


def test_of_the_schedule_only_the_leader_is_told_and_only_while_it_leads() -> None:
    hints: list[int] = []
    answers = Answers(1, schedule_hints=True)
    driver = cast("Driver", answers)
    listener = ScheduleListener(hint=lambda: hints.append(1), rng=Random(0))
    listener.follow(None, leads=False)
    listener.follow(driver, leads=False)
    assert answers.waited_for == []
    for _ in range(2):
        hints.clear()
        answers.left = 1
        listener.follow(driver, leads=True)
        listener.follow(driver, leads=True)
        wait_until(lambda: len(hints) == 1, what="a hint")
        listener.follow(driver, leads=False)
        assert listener.join(90)
    assert set(answers.waited_for) == {(SCHEDULE,)}


def test_a_store_that_tells_nothing_of_the_schedule_is_not_listened_to() -> None:
    answers = Answers(1)
    listener = ScheduleListener(hint=lambda: None, rng=Random(0))
    listener.follow(cast("Driver", answers), leads=True)
    listener.stop()
    assert listener.join(90)
    assert answers.waited_for == []
