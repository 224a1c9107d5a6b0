"""All measurements in turns, for as many rounds as fit into a time.

In turns, so that a slow quarter of an hour of the machine falls on all of them, not on one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """One measurement of one round. ``most`` bounds the rounds of what takes long."""

    title: str
    run: Callable[[], None]
    most: int = 1_000


def in_rounds(steps: Sequence[Step], *, minutes: float | None, rounds: int) -> int:
    """Run the steps in turns; the number of rounds done.

    ``rounds`` of them without ``minutes``. With it, one at least, and another one as long as it can
    be expected to end in time: each step is expected to take what it took last.
    """
    ends = None if minutes is None else time.monotonic() + minutes * 60
    took: dict[str, float] = {}
    done = 0
    while True:
        for step in _due(steps, done):
            print(f"round {done + 1}: {step.title}", flush=True)
            begin = time.monotonic()
            step.run()
            took[step.title] = time.monotonic() - begin
        done += 1
        expected = sum(took[step.title] for step in _due(steps, done))
        if done >= rounds if ends is None else time.monotonic() + expected > ends:
            return done


def _due(steps: Sequence[Step], done: int) -> Iterator[Step]:
    return (step for step in steps if done < step.most)
