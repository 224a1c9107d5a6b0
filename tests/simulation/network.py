"""The way to the store, with everything that can go wrong on it.

A request travels by itself: it arrives also when its sender has been stopped or killed meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from taskharbor.errors import StoreUnavailable
from tests.simulation.scheduler import Actor, Request, Scheduler

LATEST_SECONDS = 0.2
"""How late a late request is, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How often, per request, from 0 to 1; ``slowest`` in seconds, one way."""

    lost_request: float = 0.0
    lost_reply: float = 0.0
    late_request: float = 0.0
    slowest: float = 0.003


CLEAR = Weather()


class Network:
    """Carries the requests of the scheduler's actors. The answer is what the request returns, or
    StoreUnavailable, after which the request was applied, was not, or will be."""

    def __init__(self, scheduler: Scheduler, weather: Weather) -> None:
        self._scheduler = scheduler
        self._random = scheduler.rng.random
        self.weather = weather
        self.down_until = 0.0
        self.requests = 0
        self.unanswered = 0
        scheduler.send = self._send

    def _send(self, actor: Actor, request: Request) -> None:
        self.requests += 1
        at = self._scheduler.now + self.weather.slowest * self._random()
        self._scheduler.call_at(at, lambda: self._arrive(actor, request))

    def _arrive(self, actor: Actor, request: Request) -> None:
        scheduler, weather = self._scheduler, self.weather
        fate = self._random()
        if scheduler.now < self.down_until or fate < weather.lost_request:
            self._fail(actor, "the request was lost")
            return
        fate -= weather.lost_request
        if fate < weather.late_request:
            scheduler.call_later(LATEST_SECONDS * self._random(), request)
            self._fail(actor, "the request is on its way")
            return
        reply = request()
        if fate - weather.late_request < weather.lost_reply:
            self._fail(actor, "the reply was lost")
        else:
            scheduler.answer(actor, reply, scheduler.now + weather.slowest * self._random())

    def _fail(self, actor: Actor, why: str) -> None:
        self.unanswered += 1
        at = self._scheduler.now + self.weather.slowest * self._random()
        self._scheduler.answer(actor, StoreUnavailable(why), at)
