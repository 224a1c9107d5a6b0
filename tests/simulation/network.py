"""The way to the store, with everything that can go wrong on it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from taskharbor.errors import StoreUnavailable
from tests.simulation.scheduler import Scheduler

T = TypeVar("T")
Call = Generator[float, None, T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How often, per request, from 0 to 1; ``slowest`` in seconds, one way."""

    lost_request: float = 0.0
    lost_reply: float = 0.0
    late_request: float = 0.0
    slowest: float = 0.003


CLEAR = Weather()


class Network:
    def __init__(self, scheduler: Scheduler, weather: Weather) -> None:
        self._scheduler = scheduler
        self.weather = weather
        self.down_until = 0.0

    def call(self, request: Callable[[], T]) -> Call[T]:
        """Travel, apply, travel back: others act in between. Raises StoreUnavailable, after which
        the request was applied, was not, or will be."""
        scheduler, weather = self._scheduler, self.weather
        random = scheduler.rng.random
        fate = random()
        yield scheduler.now + weather.slowest * random()
        if scheduler.now < self.down_until or fate < weather.lost_request:
            raise StoreUnavailable("the request was lost")
        fate -= weather.lost_request
        if fate < weather.late_request:
            scheduler.call_later(0.2 * random(), request)
            raise StoreUnavailable("the request is on its way")
        fate -= weather.late_request
        reply = request()
        yield scheduler.now + weather.slowest * random()
        if fate < weather.lost_reply:
            raise StoreUnavailable("the reply was lost")
        return reply
