"""Actors under a virtual clock.

An actor is a generator that yields the time at which it wants to go on. Everything that happens
between two yields is one atomic step; when two actors are due together, the seed decides who goes
first.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from random import Random

Steps = Generator[float, None, None]


class Actor:
    """``suspended_until``: stopped (SIGSTOP) up to then, while time goes on for the others."""

    __slots__ = ("alive", "step", "suspended_until", "turn")

    def __init__(self, steps: Steps) -> None:
        self.step = steps.__next__
        self.turn = 0
        self.alive = True
        self.suspended_until = 0.0


class StoreClock:
    """The store's clock: moves with the host's, from another origin."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def now(self) -> float:
        return 1_700_000_000.0 + self._scheduler.now


class Scheduler:
    """Runs actors in the order of their times, which are the host's boot-time clock: ``now``.

    ``at_step[n]`` is called with the actor whose turn it is before the ``n``-th step of all: most
    steps are taken where much happens, so failures chosen by step hit what failures chosen by time
    would miss.
    """

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.clock = StoreClock(self)
        self.now = 1000.0
        self.at_step: dict[int, Callable[[Actor], object]] = {}
        self._steps = 0
        self._queue: list[tuple[float, float, int, Actor]] = []

    def spawn(self, steps: Steps, delay: float = 0.0) -> Actor:
        actor = Actor(steps)
        self._schedule(actor, self.now + delay)
        return actor

    def call_later(self, delay: float, action: Callable[[], object]) -> None:
        def once() -> Steps:
            action()
            yield from ()

        self.spawn(once(), delay)

    def wake(self, actor: Actor) -> None:
        """Now, instead of at the time it had yielded."""
        self._schedule(actor, self.now)

    def _schedule(self, actor: Actor, at: float) -> None:
        actor.turn += 1
        heappush(self._queue, (at, self.rng.random(), actor.turn, actor))

    def kill(self, actor: Actor) -> None:
        """It takes no further step, not even a ``finally``."""
        actor.alive = False

    def run(self, until: float) -> None:
        """All steps up to boot time ``until``. Hot: half of a simulation was spent here."""
        queue, at_step, random = self._queue, self.at_step, self.rng.random
        while queue and queue[0][0] <= until:
            at, _, turn, actor = heappop(queue)
            if turn != actor.turn or not actor.alive:
                continue
            if actor.suspended_until > at:
                self._schedule(actor, actor.suspended_until)
                continue
            if at > self.now:
                self.now = at
            number = self._steps
            self._steps = number + 1
            if number in at_step:
                at_step.pop(number)(actor)
                self._schedule(actor, self.now)
                continue
            try:
                at = actor.step()
            except StopIteration:
                actor.alive = False
                continue
            actor.turn = turn = actor.turn + 1
            heappush(queue, (max(self.now, at), random(), turn, actor))
        self.now = max(self.now, until)
