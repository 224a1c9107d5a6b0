"""Wait for a condition with a deadline, never for a length of time; and measure what a busy
machine can't spoil."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 90.0
"""Until something counts as never happening. A wait ends when its condition holds, so patience
costs nothing; too little of it makes a busy machine a failure."""


def wait_until(
    condition: Callable[[], T],
    *,
    seconds: float = PATIENCE_SECONDS,
    what: str = "",
    pause: float = 0.01,
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


def best_of(measure: Callable[[], float], *, below: float, tries: int = 20) -> float:
    """The smallest of up to `tries` measured costs (seconds, bytes); the first one under `below`
    is enough.

    What else the machine does only adds to a cost. So the smallest one tells most about the code:
    a bound on it fails when the code always takes longer, where a bound on any single cost also
    fails when the machine stalls just then.
    """
    costs: list[float] = []
    while len(costs) < tries and (not costs or min(costs) >= below):
        costs.append(measure())
    print("costs:", *(f"{cost:.4g}" for cost in costs))
    return min(costs)
