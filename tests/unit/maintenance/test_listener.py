"""The listener's thread, on a driver whose answers the test writes."""

import threading
import time
from collections.abc import Sequence
from random import Random
from typing import cast

from taskharbor.drivers.base import Driver
from taskharbor.maintenance.listener import Listener
from tests.waiting import wait_until


class Answers:
    """Says at once, ``times`` times, that a job may be ready, and then nothing more."""

    def __init__(self, times: int) -> None:
        self.left = times

    def wait(self, queues: Sequence[str], seconds: float) -> None:
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
