"""How long to wait before the next attempt: policies that travel as data.

A policy packs to a tuple of plain values inside the job, so that any process can compute the next
delay without the task's code. Randomness comes in as an argument.

Full and equal jitter are M. Brooker's, "Exponential Backoff And Jitter", AWS Architecture Blog,
2015.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from taskharbor import defaults
from taskharbor.errors import ConfigurationError, DecodeError

if TYPE_CHECKING:
    from random import Random

Jitter = Literal["full", "equal", "none"]
Packed = tuple[Any, ...]


class Backoff(Protocol):
    """Seconds to wait after failed attempt number ``attempt`` (1, 2, …)."""

    def delay(self, attempt: int, rng: Random) -> float: ...

    def pack(self) -> Packed: ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always ``seconds``."""

    seconds: float

    def __post_init__(self) -> None:
        _check("seconds", self.seconds)

    def delay(self, attempt: int, rng: Random) -> float:
        return self.seconds

    def pack(self) -> Packed:
        return ("fixed", self.seconds)


@dataclass(frozen=True, slots=True)
class Exponential:
    """``base * factor ** (attempt - 1)`` seconds, at most ``cap``, then jitter.

    ``full`` draws from 0 to that, ``equal`` from half of that to that, ``none`` takes it as it is.
    """

    base: float = defaults.BACKOFF_BASE_SECONDS
    factor: float = defaults.BACKOFF_FACTOR
    cap: float = defaults.BACKOFF_CAP_SECONDS
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        _check("base", self.base)
        _check("cap", self.cap)
        factor: object = self.factor
        if not (isinstance(factor, int | float) and 1 <= factor <= 1000):
            raise ConfigurationError(
                f"backoff factor is {self.factor!r}; use a number from 1 to 1000"
            )
        if self.jitter not in ("full", "equal", "none"):
            raise ConfigurationError(f"jitter is {self.jitter!r}; use 'full', 'equal' or 'none'")

    def delay(self, attempt: int, rng: Random) -> float:
        # 1000 doublings pass any cap and still fit a float's exponent.
        exponent = min(max(attempt, 1) - 1, 1000)
        try:
            longest = min(self.cap, self.base * self.factor**exponent)
        except OverflowError:
            longest = self.cap
        if self.jitter == "none":
            return longest
        low = longest / 2 if self.jitter == "equal" else 0.0
        return low + (longest - low) * rng.random()

    def pack(self) -> Packed:
        return ("exponential", self.base, self.factor, self.cap, self.jitter)


@dataclass(frozen=True, slots=True)
class Delays:
    """The listed seconds, one per failed attempt; the last one repeats."""

    seconds: tuple[float, ...]

    def __init__(self, *seconds: float) -> None:
        if not 1 <= len(seconds) <= 100:
            raise ConfigurationError("Delays() takes 1 to 100 delays in seconds")
        for value in seconds:
            _check("a delay", value)
        object.__setattr__(self, "seconds", tuple(seconds))

    def delay(self, attempt: int, rng: Random) -> float:
        return self.seconds[min(max(attempt, 1), len(self.seconds)) - 1]

    def pack(self) -> Packed:
        return ("delays", *self.seconds)


def unpack(packed: Packed | None) -> Backoff:
    """The policy that ``pack()`` packed; None is the default one. Raises DecodeError."""
    if packed is None:
        return DEFAULT
    try:
        kind, *values = packed
        return _KINDS[kind](*values)
    except (KeyError, TypeError, ValueError, ConfigurationError) as error:
        raise DecodeError(f"the job's backoff policy {packed!r} is not one: {error}") from error


_KINDS: dict[str, Callable[..., Backoff]] = {
    "fixed": Fixed,
    "exponential": Exponential,
    "delays": Delays,
}


def _check(name: str, seconds: object) -> None:
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not math.isfinite(seconds)
        or not 0 <= seconds <= defaults.MAX_DELAY_SECONDS
    ):
        raise ConfigurationError(
            f"backoff {name} is {seconds!r}; use a number of seconds from 0 to "
            f"{defaults.MAX_DELAY_SECONDS:g}"
        )


DEFAULT: Backoff = Exponential()
