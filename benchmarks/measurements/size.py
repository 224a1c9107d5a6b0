"""How much work each measurement does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int  # no-op jobs of a drain
    long_jobs: int  # those of a millisecond
    singles: int  # delay() one by one
    pickups: int
    idle_seconds: float
    kills: int
    backlogs: tuple[int, ...]
    members: int  # of a chord
    steps: int  # of a chain


FULL = Size(
    jobs=20_000,
    long_jobs=4_000,
    singles=2_000,
    pickups=200,
    idle_seconds=10.0,
    kills=3,
    backlogs=(1_000, 10_000, 100_000, 1_000_000),
    members=10_000,
    steps=100,
)
# Shows in a minute that everything works; its figures are too short to compare.
SHORT = Size(
    jobs=2_000,
    long_jobs=100,
    singles=100,
    pickups=20,
    idle_seconds=0.5,
    kills=1,
    backlogs=(1_000, 4_000),
    members=200,
    steps=10,
)
