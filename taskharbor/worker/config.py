"""What a worker is told: its settings, what a child is given, and how processes end.

Settings are checked here once, with errors that name the setting as it is typed on the command
line; nothing behind this module checks them again.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, Self, get_args

from taskharbor import defaults
from taskharbor.errors import ConfigurationError, InvalidJob, InvalidLease
from taskharbor.lease import check_lease_seconds
from taskharbor.message import check_name

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.worker.table import ChildTable
    from taskharbor.worker.wake import Wake

Pool = Literal["process", "thread", "async"]
LogFormat = Literal["auto", "human", "json"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

DEFAULT_SLOTS: dict[str, int] = {"process": 1, "thread": 8, "async": 100}
MAX_CHILDREN = 1024
MAX_SLOTS = 10_000
MAX_WEIGHT = 1000

_APP_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?\Z")


class ExitCode(IntEnum):
    """How a process of a worker ends by itself. From 64 up, away from shells' and Python's own.

    The first four are also exit codes of ``taskharbor worker``.
    """

    OK = 0
    """Stopped as asked; nothing is held any more."""
    FORCED = 1
    """Stopped, but running jobs had to be killed; they were handed back."""
    INTERNAL = 70
    """A bug in TaskHarbor; the log has the traceback."""
    CONFIGURATION = 78
    """The app can't be imported, or a setting can't work."""

    RECYCLED = 80
    """A child reached --max-tasks-per-child or --max-memory-per-child; it holds nothing."""
    ORPHANED = 81
    """A child or generation whose parent is gone."""
    HARD_LIMIT = 82
    """A child that ended itself because a job passed its hard limit."""
    RETIRED = 83
    """A child whose holder the store has retired: somebody believed it dead."""
    START_FAILED = 84
    """A child whose import of the app or ``child_start`` hook raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """One worker's settings. Seconds and bytes. Raises ConfigurationError, naming the setting.

    ``app_path``: ``pkg.module`` or ``pkg.module:attribute``. ``url`` None: the app's own.
    ``queues``: names with weights; of two queues with jobs waiting, one with weight 3 is asked
    first three times as often as one with weight 1. ``heartbeat_seconds`` 0: a third of the
    lease. ``slots`` 0: the pool's default (1 for ``process``). ``max_tasks_per_child`` and
    ``max_memory_per_child`` 0: no limit.
    """

    app_path: str
    url: str | None = None
    queues: tuple[tuple[str, int], ...] = ((defaults.QUEUE, 1),)
    concurrency: int = 0
    lease_seconds: float = defaults.LEASE_SECONDS
    heartbeat_seconds: float = 0.0
    grace_seconds: float = defaults.GRACE_SECONDS
    pool: Pool = "process"
    slots: int = 0
    max_tasks_per_child: int = 0
    max_memory_per_child: int = 0
    prefetch_max: int = defaults.PREFETCH_MAX
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"
    reload: bool = False

    def __post_init__(self) -> None:
        _check_app_path(self.app_path)
        _check_choices(self)
        _check_queues(self.queues)
        if not self.concurrency:
            object.__setattr__(self, "concurrency", os.cpu_count() or 1)
        if not self.slots:
            object.__setattr__(self, "slots", DEFAULT_SLOTS[self.pool])
        _check_whole("--concurrency", self.concurrency, 1, MAX_CHILDREN)
        _check_whole("--slots", self.slots, 1, MAX_SLOTS)
        _check_whole("--prefetch", self.prefetch_max, 1, defaults.BATCH)
        _check_whole("--max-tasks-per-child", self.max_tasks_per_child, 0, 1 << 62)
        _check_whole("--max-memory-per-child", self.max_memory_per_child, 0, 1 << 62)
        if self.pool == "process" and self.slots != 1:
            raise ConfigurationError(
                f"--slots is {self.slots}, but --pool process runs one job at a time in each "
                "child; use --pool thread or --pool async, or raise --concurrency"
            )
        self._check_times()

    def _check_times(self) -> None:
        try:
            check_lease_seconds(self.lease_seconds)
        except InvalidLease as error:
            raise ConfigurationError(f"--lease: {error}") from error
        if not self.heartbeat_seconds:
            object.__setattr__(self, "heartbeat_seconds", self.lease_seconds / 3)
        # At half the lease one lost heartbeat still leaves time for the next.
        _check_number("--heartbeat", self.heartbeat_seconds, 0.01, self.lease_seconds / 2)
        _check_number("--grace", self.grace_seconds, 0.0, 86_400.0)

    @property
    def queue_names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.queues)

    @property
    def silent_after_seconds(self) -> float:
        """A child without a heartbeat for this long is renewed from outside."""
        return 1.5 * self.heartbeat_seconds

    def with_url(self, url: str) -> Self:
        return replace(self, url=url)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What ``to_json`` wrote, for a process that was started with exec."""
        values = json.loads(text)
        values["queues"] = tuple((name, weight) for name, weight in values["queues"])
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildContext:
    """What one child is given right after its fork.

    ``holder`` is new for every child. ``index`` is the child's row in
    the shared table and stays below twice the concurrency (a reload overlaps two generations).
    ``parent`` is the pid that must stay the child's parent: the generation's.
    """

    app: TaskHarbor
    config: WorkerConfig
    holder: str
    index: int
    table: ChildTable
    wake: Wake
    parent: int


def parse_queues(text: str) -> tuple[tuple[str, int], ...]:
    """``"mail:3,default"`` → ``(("mail", 3), ("default", 1))``. Raises ConfigurationError.

    The part after the last colon is a weight if it is a whole number: queue names may have colons.
    """
    queues = []
    for part in text.split(","):
        name, colon, weight = part.strip().rpartition(":")
        if colon and weight.isdecimal():
            queues.append((name, int(weight)))
        else:
            queues.append((part.strip(), 1))
    _check_queues(tuple(queues))
    return tuple(queues)


def _check_app_path(path: object) -> None:
    if not isinstance(path, str) or not _APP_PATH.match(path):
        raise ConfigurationError(
            f"the app {path!r} is not of the form 'package.module' or 'package.module:attribute'; "
            "for shop/tasks.py with `app = TaskHarbor()` write -A shop.tasks"
        )


def _check_choices(config: WorkerConfig) -> None:
    for option, value, choices in (
        ("--pool", config.pool, get_args(Pool)),
        ("--loglevel", config.log_level, get_args(LogLevel)),
        ("--log-format", config.log_format, get_args(LogFormat)),
    ):
        if value not in choices:
            raise ConfigurationError(f"{option} is {value!r}; use one of {', '.join(choices)}")


def _check_queues(queues: object) -> None:
    if not isinstance(queues, tuple) or not queues:
        raise ConfigurationError("-Q names no queue; write for example -Q mail:3,default")
    for name, weight in queues:
        try:
            check_name("-Q: queue", name)
        except InvalidJob as error:
            raise ConfigurationError(str(error)) from error
        _check_whole(f"-Q: the weight of {name}", weight, 1, MAX_WEIGHT)
    names = [name for name, _ in queues]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"-Q names {', '.join(twice)} more than once; name each once")


def _check_whole(option: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigurationError(
            f"{option} is {value!r}; use a whole number from {least} to {most}"
        )


def _check_number(option: str, value: object, least: float, most: float) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not least <= value <= most
    ):
        raise ConfigurationError(
            f"{option} is {value!r}; use a number of seconds from {least:g} to {most:g}"
        )
