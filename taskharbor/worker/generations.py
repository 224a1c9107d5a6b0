"""Which generation serves, which is being loaded, and which are draining."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Self

from taskharbor.worker.channel import Frame
from taskharbor.worker.config import WorkerConfig
from taskharbor.worker.logs import get_logger
from taskharbor.worker.restarts import Restarts
from taskharbor.worker.subprocesses import Subprocess
from taskharbor.worker.table import SharedTable
from taskharbor.worker.wake import Wake

MODULE = "taskharbor.worker.generation"
LEAVE_SECONDS = 5.0
LONG_IMPORT_SECONDS = 5.0
"""An import that takes longer is worth a line in the log, and another whenever it has taken twice
as long again."""

_log = get_logger("taskharbor.worker")


@dataclass(frozen=True, slots=True)
class AppInfo:
    """What a generation found when it imported the app. ``url`` may have secrets."""

    url: str
    tasks: int
    files: tuple[str, ...]

    @classmethod
    def of(cls, frame: Frame) -> Self:
        return cls(frame["url"], frame["tasks"], tuple(frame["files"]))


@dataclass(slots=True, eq=False)
class Generation:
    """``info`` None: it is still importing the app. ``remind_at``: when that takes too long."""

    process: Subprocess
    import_in_children: bool
    info: AppInfo | None = None
    started_at: float = 0.0
    remind_at: float = inf


class Generations:
    """At most one is current and one loading."""

    def __init__(self, config: WorkerConfig, table: SharedTable, wake: Wake, rng: Random) -> None:
        self._config = config
        self._table = table
        self._wake = wake
        self._restarts = Restarts(rng)
        self.current: Generation | None = None
        self.loading: Generation | None = None
        self.draining: list[Generation] = []
        self.load_at: float | None = None
        """When to load a generation to replace one that died or could not be loaded."""
        self.forgiven = False
        """Whether the first one has died by a signal already."""
        self.files: tuple[str, ...] = ()
        self._leaving: list[tuple[Subprocess, float]] = []

    def __iter__(self) -> Iterator[Generation]:
        return iter([g for g in (self.current, self.loading, *self.draining) if g is not None])

    def load(self, info: AppInfo | None = None) -> None:
        """Start a new one; with ``info``, what an import here found: then children import."""
        self.load_at = None
        self.abandon()
        process = Subprocess(
            MODULE,
            (self._table.fd, *self._wake.fds),
            config=self._config.to_json(),
            rows=self._table.children,
            import_in_children=info is not None,
        )
        now = time.monotonic()
        self.loading = Generation(
            process, info is not None, info, started_at=now, remind_at=now + LONG_IMPORT_SECONDS
        )

    def abandon(self) -> None:
        """Give up the one that is being loaded."""
        if self.loading is not None:
            self.loading.process.kill()
            self.loading.process.channel.close()
            self.loading = None

    def remind(self, now: float) -> float:
        """Say it when the import of the app takes long, which it may do for ever; when to come
        again."""
        loading = self.loading
        if loading is None:
            return inf
        if now >= loading.remind_at:
            seconds = now - loading.started_at
            _log.warning(
                "the app is still being imported; SIGUSR1 shows where it is",
                app=self._config.app_path,
                pid=loading.process.pid,
                seconds=round(seconds, 1),
            )
            loading.remind_at = now + seconds
        return loading.remind_at

    def ready(self, generation: Generation, frame: Frame) -> bool:
        """The import is done; whether the generation can serve."""
        if generation.import_in_children:
            return True
        info = AppInfo.of(frame)
        self.files = info.files
        generation.info = info
        if not frame["leftovers"]:
            return True
        _log.warning(
            "importing the app leaves threads or sockets behind, which do not survive a fork: each "
            "child imports the app itself, at the price of memory and start-up time. Create them "
            "in a child_start hook instead",
            left=frame["leftovers"],
        )
        self.load(info)
        return False

    def adopt(self, generation: Generation) -> None:
        """From now on this one serves; the one before drains."""
        if self.current is not None:
            self.draining.append(self.current)
        self.current = generation
        self.loading = None
        self._restarts.lives()

    def load_failed(self, now: float, files: tuple[str, ...]) -> None:
        """Stay with the current one; without one, try again later."""
        self.files = tuple(dict.fromkeys([*self.files, *files]))
        self.abandon()
        if self.current is None:
            self._load_later(now)

    def died(self, generation: Generation, now: float) -> None:
        generation.process.channel.close()
        if generation is self.current:
            self.current = None
            if self.loading is None:
                self._load_later(now)
        elif generation in self.draining:
            self.draining.remove(generation)

    def drained(self, generation: Generation, now: float) -> None:
        """It has no children any more: the end of its channel ends it."""
        self.draining.remove(generation)
        generation.process.channel.close()
        self._leaving.append((generation.process, now + LEAVE_SECONDS))

    def see_off(self, now: float) -> float:
        """Wait for those that were drained, without blocking; when to come again."""
        self._leaving = [
            (process, until) for process, until in self._leaving if not process.ended()
        ]
        for process, until in self._leaving:
            if now >= until:
                process.kill()
        return min((until for _, until in self._leaving), default=inf)

    def _load_later(self, now: float) -> None:
        self.load_at = now + self._restarts.died(early=True)
