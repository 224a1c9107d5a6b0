"""Blows that fall at their moments, on workers that are manned again when they fell."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import NamedTuple

import psycopg
import redis

from tests.chaos.faults import Fault, Missed, Scene
from tests.chaos.posts import Post
from tests.chaos.sites import Site, Undo
from tests.servers.process import ServerFailed

UNDO_AGAIN_SECONDS = 0.3
LOOK_SECONDS = 0.05

TROUBLE = (Missed, OSError, ServerFailed, redis.RedisError, psycopg.Error)
"""What a blow may find: nobody, or a store that another blow holds down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """``at``: seconds from the beginning."""

    at: float
    fault: Fault


class Appointment(NamedTuple):
    """``at``: monotonic clock. ``number`` keeps those of one moment in their order."""

    at: float
    number: int
    act: Callable[[], None]


class Agenda:
    """What is to be done when, counted from now on."""

    def __init__(self) -> None:
        self._numbers = count()
        self._waiting: list[Appointment] = []

    def add(self, seconds: float, act: Callable[[], None]) -> None:
        at = time.monotonic() + seconds
        heappush(self._waiting, Appointment(at, next(self._numbers), act))

    def next(self) -> Appointment | None:
        return heappop(self._waiting) if self._waiting else None


def _nothing() -> None:
    """The end of a storm is an appointment, too."""


class Weather:
    """``happened``: what was struck and what became of it, for a report."""

    def __init__(self, site: Site, posts: Sequence[Post]) -> None:
        self._site = site
        self._posts = posts
        self.happened: list[str] = []

    def blow(
        self, blows: Sequence[Blow], seconds: float, also: Callable[[], object] | None = None
    ) -> None:
        """Strike and end, each at its moment; returns after ``seconds`` or when the last has ended.

        ``also`` is called again and again meanwhile.
        """
        scene = Scene(self._site, self._posts, Random(len(blows)))
        agenda = Agenda()

        def strike(blow: Blow) -> None:
            try:
                undo = blow.fault.strike(scene)
            except TROUBLE as error:
                self.happened.append(f"{blow.fault}: missed ({type(error).__name__}: {error})")
                return
            self.happened.append(f"{blow.fault}")
            if undo is not None:
                agenda.add(blow.fault.seconds, partial(end, undo))

        def end(undo: Undo) -> None:
            try:
                undo()
            except TROUBLE:
                # Another blow holds the store down. It will be back: every blow has an end.
                agenda.add(UNDO_AGAIN_SECONDS, partial(end, undo))

        for blow in blows:
            agenda.add(blow.at, partial(strike, blow))
        agenda.add(seconds, _nothing)
        while (due := agenda.next()) is not None:
            self.keep_manned(due.at, also)
            due.act()
        self._site.heal()

    def keep_manned(self, until: float, also: Callable[[], object] | None = None) -> None:
        """Look after the posts, as a service manager does, up to that moment."""
        while True:
            for post in self._posts:
                code = post.look()
                if code is not None:
                    self.happened.append(f"post {post.number}: ended with {code}, manned again")
                    post.man()
            if also is not None:
                also()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, LOOK_SECONDS))
