"""Actors under a virtual clock.

An actor is a generator that yields the time at which it wants to go on, or a request: then it goes
on when the answer has come. Everything that happens between two yields is one atomic step; when
two actors are due together, the seed decides who goes first.

Most looks of an idle process find what the one before found. An actor that is only looking is
passed over while nothing is going to happen, and looks again around the time when something does.
A process that gets no turn for a while is nothing that a machine would not do, too, and the turns
are spent where something can go wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
Request = Callable[[], Any]
Call = Generator[float | Request, Any, T]
Steps = Call[None]
Entry = tuple[float, float, int, "Actor | Callable[[], object]"]

EPOCH = 1_700_000_000.0
"""What the store's clock says when the host's boot-time clock says 0."""
LOOK_SECONDS = 1.25
"""From one look to the next: no machine of the worker's waits longer."""
LOOKS_BEFORE = 0.25
"""How many of the looks around a change come before it."""


class Actor:
    """``suspended_until``: stopped (SIGSTOP) up to then, while time goes on for the others.

    ``quiet``: what it is going to do is no reason for others to look. ``looking``: quiet, and it
    will only look whether there is anything to do.
    """

    __slots__ = (
        "alive",
        "awaits",
        "looking",
        "nudged",
        "quiet",
        "reply",
        "steps",
        "suspended_until",
        "turn",
    )

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.turn = 0
        self.alive = True
        self.quiet = self.looking = False
        self.awaits = self.nudged = False
        self.reply: Any = None
        self.suspended_until = 0.0

    def step(self) -> float | Request:
        """What it yields next. Raises StopIteration."""
        if not self.awaits:
            return next(self.steps)
        reply, self.reply, self.awaits = self.reply, None, False
        if isinstance(reply, Exception):
            return self.steps.throw(reply)
        return self.steps.send(reply)


class Scheduler:
    """Runs actors in the order of their times, which are the host's boot-time clock: ``now``.

    ``at_step[n]`` is called with the actor whose turn it is before the ``n``-th step of all: most
    steps are taken where much happens, so failures chosen by step hit what failures chosen by time
    would miss. ``next_change``: when, in boot time, the world will have changed though no actor
    did anything. ``send`` takes each request; ``answer`` is to be called for it.
    """

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.now = 1000.0
        self.steps = 0
        self.at_step: dict[int, Callable[[Actor], object]] = {}
        self.next_change: Callable[[], float] = lambda: inf
        self.send: Callable[[Actor, Request], None]
        self._acting: list[Entry] = []
        self._quiet: list[Entry] = []
        self._paused = False

    @property
    def store_now(self) -> float:
        """The store's clock: moves with the host's, from another origin."""
        return EPOCH + self.now

    @staticmethod
    def boot_time(store_time: float) -> float:
        return store_time - EPOCH

    def spawn(self, steps: Steps, delay: float = 0.0) -> Actor:
        actor = Actor(steps)
        self._schedule(actor, self.now + delay)
        return actor

    def call_at(self, at: float, action: Callable[[], object]) -> None:
        heappush(self._acting, (at, self.rng.random(), 0, action))

    def call_later(self, delay: float, action: Callable[[], object]) -> None:
        self.call_at(self.now + delay, action)

    def wake(self, actor: Actor, at: float | None = None) -> None:
        """At that time (None: now), instead of the one that it had yielded. One that awaits an
        answer goes on at once after that."""
        if actor.awaits:
            actor.nudged = True
        else:
            self._schedule(actor, self.now if at is None else at)

    def answer(self, actor: Actor, reply: Any, at: float) -> None:
        """The answer to the actor's request, which comes at ``at``; an exception is raised."""
        actor.reply = reply
        self._schedule(actor, at)

    def _schedule(self, actor: Actor, at: float) -> None:
        actor.turn += 1
        actor.quiet = actor.looking = False
        heappush(self._acting, (at, self.rng.random(), actor.turn, actor))

    def kill(self, actor: Actor) -> None:
        """It takes no further step, not even a ``finally``; its request is on its way."""
        actor.alive = False

    def pause(self) -> None:
        """Let ``run`` return after the step that is being taken."""
        self._paused = True

    def run(self, until: float) -> None:
        """All steps up to boot time ``until``, or to a pause."""
        self._paused = False
        while not self._paused:
            queue = self._first_queue()
            if not queue or queue[0][0] > until:
                self.now = max(self.now, until)
                return
            at, _, turn, actor = heappop(queue)
            if not isinstance(actor, Actor):
                self.now = max(self.now, at)
                self.steps += 1
                actor()
            elif turn == actor.turn and actor.alive:
                self._take_turn(actor, at)

    def _first_queue(self) -> list[Entry]:
        acting, quiet = self._acting, self._quiet
        return quiet if quiet and (not acting or quiet[0] < acting[0]) else acting

    def _take_turn(self, actor: Actor, at: float) -> None:
        if actor.suspended_until > at:
            self._schedule(actor, actor.suspended_until)
            return
        if actor.looking and (later := self._look_later(at)) > at:
            self._wait(actor, later)
            return
        if at > self.now:
            self.now = at
        number = self.steps
        self.steps = number + 1
        if number in self.at_step:
            self.at_step.pop(number)(actor)
            self._schedule(actor, self.now)
            return
        actor.quiet = actor.looking = False
        try:
            wish = actor.step()
        except StopIteration:
            actor.alive = False
            return
        if not isinstance(wish, float):
            actor.awaits = True
            self.send(actor, wish)
        elif actor.nudged:
            actor.nudged = False
            self._schedule(actor, self.now)
        else:
            self._wait(actor, max(self.now, wish))

    def _wait(self, actor: Actor, until: float) -> None:
        actor.turn += 1
        queue = self._quiet if actor.quiet else self._acting
        heappush(queue, (until, self.rng.random(), actor.turn, actor))

    def _look_later(self, at: float) -> float:
        """When an actor looks that would at ``at``: around the time of the next change, if that is
        far; most often after it, as there is nothing to see before."""
        change = self._acting[0][0] if self._acting else inf
        if change - at > LOOK_SECONDS:
            change = min(change, self.next_change())
            if LOOK_SECONDS < change - at < inf:
                return change + LOOK_SECONDS * (self.rng.random() - LOOKS_BEFORE)
        return at
