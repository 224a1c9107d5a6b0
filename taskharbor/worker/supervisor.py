"""The supervisor: starts, watches, drains and replaces the processes of one worker.

It runs no user code, has no threads and no connection to the store, so nothing that a task, a
library or the network does can stop it from doing its one job. One loop waits for signals (through
a wake-up descriptor), messages, and the next moment at which something is due.

Guarantees. A child that died is replaced within milliseconds, and what it held is reported to
maintenance until maintenance says that it is settled. A report is only sent when the child is dead:
its table row is its last word. The supervisor kills a child for one of three reasons: a job passed
its hard limit, a lease was lost to somebody else while the child was silent, the grace of a stop
is over.

Everything under it dies with it; see ``lifeline``.
"""

from __future__ import annotations

import select
import signal
import time
from math import inf
from random import Random
from typing import Any, Protocol

from taskharbor.errors import ConfigurationError
from taskharbor.worker.banner import announce
from taskharbor.worker.caretaker import Caretaker
from taskharbor.worker.channel import Frame
from taskharbor.worker.config import ExitCode, WorkerConfig
from taskharbor.worker.generations import Generation, Generations
from taskharbor.worker.logs import get_logger
from taskharbor.worker.nursery import Nursery
from taskharbor.worker.reload import FileWatch
from taskharbor.worker.signals import SignalInbox
from taskharbor.worker.table import SharedTable
from taskharbor.worker.tracebacks import Tracebacks
from taskharbor.worker.wake import Wake

QUIT_SECONDS = 1.0
"""After SIGQUIT: what a child may need to give back what it has not started."""
SETTLE_SECONDS = 10.0
"""After the last child's end: what maintenance may need to settle what they held."""
LATE_SECONDS = 1.0
"""The loop coming round this much late means that the supervisor itself was stopped."""
LONGEST_SLEEP_SECONDS = 30.0

_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGCHLD,
)

_log = get_logger("taskharbor.worker")


class _Readable(Protocol):
    def fileno(self) -> int: ...


class Supervisor:
    """One worker's life is one call of ``run``. Times are the monotonic clock."""

    def __init__(self, config: WorkerConfig, *, rng: Random) -> None:
        self._config = config
        # Twice: during a reload two generations overlap.
        self._table = SharedTable(2 * config.concurrency, config.slots)
        self._wake = Wake.create()
        self._caretaker = Caretaker(config, self._wake, rng)
        self._generations = Generations(config, self._table, self._wake, rng)
        self._nursery = Nursery(config, self._table, self._caretaker, rng)
        self._caretaker.losses = self._tell_app
        self._tracebacks = Tracebacks()
        self._files: FileWatch | None = None
        self._stopping = False
        self._give_up_at: float | None = None
        self._failure: str | None = None

    def run(self) -> ExitCode:
        """Until it is told to stop and everything under it is gone. Logs why it could not start."""
        with SignalInbox(_SIGNALS) as inbox:
            self._generations.load()
            due = time.monotonic()
            while not self._ended():
                self._wait(inbox, due)
                due = self._tick(time.monotonic())
            self._end()
        if self._failure is not None:
            _log.error("the worker can't run", error=self._failure)
            return ExitCode.CONFIGURATION
        forced = self._nursery.interrupted or not self._caretaker.settled
        _log.info("worker stopped", interrupted_children=self._nursery.interrupted)
        return ExitCode.FORCED if forced else ExitCode.OK

    # --- the loop --------------------------------------------------------------------------

    def _wait(self, inbox: SignalInbox, due: float) -> None:
        """Sleep until something happens or is ``due``, and handle what happened."""
        now = time.monotonic()
        channels = {g.process.channel: g for g in self._generations}
        maintenance = self._caretaker.process
        everybody = [*channels, *([maintenance.channel] if maintenance is not None else ())]
        # Of those that are closed, the end of their process is next to be heard.
        readers: list[_Readable] = [inbox, *(each for each in everybody if not each.closed)]
        writers = [each for each in everybody if each.pending]
        seconds = min(max(0.0, due - now), LONGEST_SLEEP_SECONDS)
        ready, writable, _ = select.select(readers, writers, [], seconds)
        now = time.monotonic()
        if now - due > LATE_SECONDS:
            self._nursery.was_stopped()
            self._caretaker.was_stopped(now)
        for channel in writable:
            channel.flush()
        for channel, generation in channels.items():
            if channel in ready:
                for frame in channel.receive():
                    self._heard(generation, frame, now)
        self._caretaker.receive(now)
        for number in inbox.read():
            self._signalled(signal.Signals(number), now)

    def _tick(self, now: float) -> float:
        """Do what is due; when the next thing is."""
        due = [self._caretaker.tick(now), self._nursery.look_at_orphans(now)]
        if self._caretaker.refused is not None and self._failure is None:
            self._failure = self._caretaker.refused
            self._stop(now, self._config.grace_seconds)
        self._notice_ended_generations(now)
        if not self._stopping:
            due += [self._load_due(now), self._reload_due(now), self._fill(now)]
        due += [
            self._tracebacks.tick(now),
            self._nursery.watch(now),
            self._nursery.enforce(now),
            self._generations.see_off(now),
            self._generations.remind(now),
        ]
        return min(*due, now + LONGEST_SLEEP_SECONDS, self._give_up_at or inf)

    def _fill(self, now: float) -> float:
        current = self._generations.current
        # Not before maintenance can settle what a child may leave behind.
        if current is None or not self._caretaker.ready:
            return inf
        return self._nursery.fill(current, now)

    def _signalled(self, number: signal.Signals, now: float) -> None:
        match number:
            case signal.SIGTERM | signal.SIGINT:
                if self._stopping:
                    self._quit(now)
                else:
                    _log.info("stopping", signal=number.name, grace=self._config.grace_seconds)
                    self._stop(now, self._config.grace_seconds)
            case signal.SIGQUIT:
                self._quit(now)
            case signal.SIGHUP if not self._stopping:
                _log.info("reloading: importing the app anew")
                self._generations.load()
            case signal.SIGUSR1:
                self._tracebacks.ask(self._others())
            case _:
                pass  # SIGCHLD: the tick looks at who ended

    # --- generations -----------------------------------------------------------------------

    def _heard(self, generation: Generation, frame: Frame, now: float) -> None:
        match frame["kind"]:
            case "ready":
                if self._generations.ready(generation, frame):
                    self._adopt(generation, now)
            case "failed":
                self._not_loaded(frame["error"], tuple(frame["files"]), now)
            case "forked":
                self._nursery.forked(frame)
            case "fork_failed":
                self._nursery.fork_failed(frame, now)
            case "exited":
                self._nursery.exited(frame, now)
                self._close_if_drained(generation, now)

    def _tell_app(self, losses: list[list[Any]]) -> None:
        """The app's signal handlers are called by a process of the generation."""
        if self._generations.current is not None:
            self._generations.current.process.channel.send("tell", losses=losses)

    def _adopt(self, generation: Generation, now: float) -> None:
        """A loaded generation takes over."""
        info = generation.info
        assert info is not None
        try:
            self._caretaker.serve(info.url, now)
        except ConfigurationError as error:
            self._not_loaded(str(error), info.files, now)
            return
        before = self._generations.current
        self._generations.adopt(generation)
        if before is None:
            announce(self._config, url=info.url, tasks=info.tasks)
        else:
            _log.info("the new generation takes over; the old one drains")
            self._nursery.stop(now + self._config.grace_seconds, before)
            self._close_if_drained(before, now)
        self._watch_files()

    def _not_loaded(self, error: str, files: tuple[str, ...], now: float) -> None:
        if not self._caretaker.serving:
            self._failure = error
            self._stop(now, 0.0)
            return
        _log.error("the app could not be loaded; what runs goes on", error=error)
        self._generations.load_failed(now, files)
        self._watch_files()

    def _notice_ended_generations(self, now: float) -> None:
        for generation in self._generations:
            if not generation.process.ended():
                continue
            for frame in generation.process.channel.receive():
                self._heard(generation, frame, now)
            if generation is self._generations.loading:
                self._died_importing(generation, now)
            elif generation in list(self._generations):
                if not self._stopping or self._nursery.of(generation):
                    _log.error("a generation died", ending=generation.process.ending)
                self._nursery.generation_died(generation)
                self._generations.died(generation, now)

    def _died_importing(self, generation: Generation, now: float) -> None:
        """Before anything serves, a signal is forgiven once: if it came from outside, the app is
        not to blame; if the app's own code crashes, it will again."""
        ending = generation.process.ending
        forgiven = self._generations.forgiven
        if generation.process.signalled and not (self._caretaker.serving or forgiven):
            self._generations.forgiven = True
            _log.warning("the process that imports the app died; starting it anew", ending=ending)
            self._generations.load_failed(now, ())
        else:
            self._not_loaded(f"the process that imports the app {ending}", (), now)

    def _close_if_drained(self, generation: Generation, now: float) -> None:
        if generation in self._generations.draining and not self._nursery.of(generation):
            self._generations.drained(generation, now)

    def _load_due(self, now: float) -> float:
        if self._generations.load_at is None:
            return inf
        if now >= self._generations.load_at:
            self._generations.load()
            return inf
        return self._generations.load_at

    def _watch_files(self) -> None:
        if self._config.reload:
            self._files = FileWatch(self._generations.files, time.monotonic())

    def _reload_due(self, now: float) -> float:
        if self._files is None:
            return inf
        changed = self._files.changed(now)
        if changed:
            _log.info("reloading: files changed", files=changed)
            self._generations.load()
        return self._files.look_at

    # --- stopping --------------------------------------------------------------------------

    def _stop(self, now: float, grace: float) -> None:
        self._begin_stopping()
        self._nursery.stop(now + grace)

    def _quit(self, now: float) -> None:
        _log.warning("stopping at once")
        self._begin_stopping()
        self._nursery.quit(now + QUIT_SECONDS)

    def _begin_stopping(self) -> None:
        if not self._stopping:
            # What a reload cut short long ago says nothing about how this stop went.
            self._nursery.interrupted = 0
        self._stopping = True
        self._generations.abandon()
        self._caretaker.drain()

    def _ended(self) -> bool:
        """Whether there is nothing left to wait for."""
        if not self._stopping or len(self._nursery):
            return False
        now = time.monotonic()
        if self._give_up_at is None:
            self._give_up_at = now + SETTLE_SECONDS
        if not self._caretaker.settled and now < self._give_up_at:
            return False
        if not self._caretaker.settled:
            _log.error(
                "the store did not answer in time: what the children held comes back when its "
                "leases expire",
                children=self._caretaker.unsettled,
            )
        return True

    def _end(self) -> None:
        """Nobody has children any more: end the processes, close what is shared."""
        for generation in self._generations:
            generation.process.end()
        self._caretaker.end()
        self._table.close()
        self._wake.close()

    def _others(self) -> list[tuple[str, int]]:
        """All other processes of this worker, by name and pid."""
        others = [("generation", generation.process.pid) for generation in self._generations]
        if self._caretaker.process is not None:
            others.append(("maintenance", self._caretaker.process.pid))
        return [*others, *self._nursery.pids()]
