"""Wait for a condition with a deadline, never for a length of time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], *, seconds: float = 30.0, what: str = "", pause: float = 0.01
) -> T:
    """Return the first truthy value of `condition`; raise `TimeoutError` naming `what` after
    `seconds`. It is asked every `pause` seconds.

    An exception of the condition is not swallowed: a condition that may fail on its way says so
    itself by returning a falsy value.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what or condition} did not come within {seconds} s: {value!r}")
        time.sleep(pause)
