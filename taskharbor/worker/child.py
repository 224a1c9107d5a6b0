"""A child: reserves jobs, runs them, settles them, until it is told to stop or is used up.

    main thread        reserve loop (``reserving``): does what the ``planner`` decides, runs jobs
    heartbeat thread   ``pulse``: does what ``heartbeat`` decides

Both work on one ``settler``, which owns every lease of this process. What is decided is decided in
``planner``, ``settler``, ``prefetch``, ``recovery``, ``heartbeat`` and ``shutdown``, without I/O;
this module puts the parts together. With ``--pool async`` the reserve loop has a thread of its own,
and the main thread an event loop.

A crash at any moment leaves to the outside: the shared table, which says what was running, and the
store, which says what was held.
"""

from __future__ import annotations

import faulthandler
import signal
from random import Random
from types import FrameType

from taskharbor.drivers.base import Driver
from taskharbor.errors import StoreError
from taskharbor.worker.attempt import Station
from taskharbor.worker.config import ChildContext, ExitCode
from taskharbor.worker.executor import Executor
from taskharbor.worker.heartbeat import Heartbeat
from taskharbor.worker.ordinary import make_forks_ordinary
from taskharbor.worker.planner import Planner
from taskharbor.worker.pools.asynchronous import AsyncPool
from taskharbor.worker.pools.process import ProcessPool
from taskharbor.worker.pools.thread import ThreadPool
from taskharbor.worker.prefetch import Prefetch, Rotation
from taskharbor.worker.pulse import Pulse
from taskharbor.worker.recovery import Retry
from taskharbor.worker.reserving import ReserveLoop
from taskharbor.worker.settler import Settler
from taskharbor.worker.shutdown import Budget, Shutdown
from taskharbor.worker.store_log import StoreLog
from taskharbor.worker.table import boot_time
from taskharbor.worker.waker import Alarm, Bed


def run_child(context: ChildContext) -> int:
    """Serve until a stop, then return the exit code. To be called in the main thread, right after
    the fork.

    Signals: SIGTERM stops gracefully, SIGQUIT at once (the process then ends in here), SIGUSR1
    writes all tracebacks to standard error, SIGINT is the supervisor's.
    """
    alarm = Alarm()
    _take_signals(alarm)
    driver = _connect(context, alarm)
    if driver is None:
        return ExitCode.OK
    return _Child(context, driver, alarm).serve()


def _take_signals(alarm: Alarm) -> None:
    """Signal numbers go to the heartbeat thread's descriptor from C, so that a stop is seen even
    while the main thread is deep in C code; the handlers themselves do nothing."""
    # Not SIG_IGN: programs that a task starts would inherit that, and ignore a Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        signal.signal(number, _nothing)
    signal.set_wakeup_fd(alarm.fd, warn_on_full_buffer=False)
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)
    make_forks_ordinary()


def _nothing(signum: int, frame: FrameType | None) -> None:
    """A Python handler must exist for the number to be written to the wake-up descriptor."""


def _connect(context: ChildContext, alarm: Alarm) -> Driver | None:
    """The app's driver, as soon as the store can be reached; None: told to stop before that."""
    retry, store_log = Retry(Random()), StoreLog("connect")
    while True:
        try:
            driver: Driver = context.app.driver
        except StoreError as error:
            now = boot_time()
            context.table.beat(now)
            store_log.failed(error, now)
            retry.failed(now)
            if {signal.SIGTERM, signal.SIGQUIT} & set(alarm.sleep(retry.at)):
                return None
        else:
            store_log.answered(boot_time())
            return driver


class _Child:
    def __init__(self, context: ChildContext, driver: Driver, alarm: Alarm) -> None:
        config = context.config
        rng = Random()
        self._config = config
        self._settler = Settler()
        self._shutdown = Shutdown()
        self._bed = Bed(context.wake)
        self._station = Station(
            driver,
            context.holder,
            self._settler,
            context.table,
            alarm,
            slots=config.slots,
            lease_seconds=config.lease_seconds,
        )
        prefetch = Prefetch(slots=config.slots, most=config.prefetch_max)
        budget = Budget(tasks=config.max_tasks_per_child, memory_bytes=config.max_memory_per_child)
        planner = Planner(
            self._settler,
            self._shutdown,
            prefetch,
            Rotation(config.queues),
            budget,
            rng,
            slots=config.slots,
            lease_seconds=config.lease_seconds,
            heartbeat_seconds=config.heartbeat_seconds,
        )
        self._pool = self._make_pool(Executor(context.app, rng=rng, threads=config.slots), prefetch)
        self._reserve = ReserveLoop(
            self._station, planner, self._bed, self._pool, watch_memory=budget.watches_memory
        )
        heartbeat = Heartbeat(
            self._settler,
            self._shutdown,
            rng,
            slots=config.slots,
            heartbeat_seconds=config.heartbeat_seconds,
            now=boot_time(),
        )
        self._pulse = Pulse(
            self._station,
            heartbeat,
            self._shutdown,
            self._bed,
            self._pool.interrupt,
            parent=context.parent,
        )

    def _make_pool(
        self, executor: Executor, prefetch: Prefetch
    ) -> ProcessPool | ThreadPool | AsyncPool:
        slots = self._config.slots
        match self._config.pool:
            case "process":
                return ProcessPool(self._station, executor, prefetch)
            case "thread":
                return ThreadPool(self._station, executor, prefetch, self._bed, slots=slots)
            case "async":
                return AsyncPool(self._station, executor, prefetch, self._bed, slots=slots)

    def serve(self) -> ExitCode:
        self._pulse.start()
        if isinstance(self._pool, AsyncPool):
            code = self._pool.run(self._reserve)
        else:
            code = self._reserve.run()
        self._pulse.stop()
        return code
