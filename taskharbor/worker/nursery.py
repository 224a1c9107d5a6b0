"""The children: forked, watched, stopped, replaced, and reported when they are dead.

A child ends in one of two ways. Its generation waits for it and says so; or the generation itself
dies, its children with it (see ``lifeline``), and the supervisor looks at them until they are gone.
"""

from __future__ import annotations

import os
import signal
from math import inf
from random import Random

from taskharbor.worker.caretaker import Caretaker
from taskharbor.worker.channel import Frame
from taskharbor.worker.config import WorkerConfig
from taskharbor.worker.generations import Generation
from taskharbor.worker.lifeline import describe_code, process_state
from taskharbor.worker.logs import get_logger
from taskharbor.worker.restarts import Restarts
from taskharbor.worker.roster import Child, Roster, died_young
from taskharbor.worker.table import SharedTable, boot_time
from taskharbor.worker.watch import LONGEST_WATCH_SECONDS, Finding, look

ORPHAN_LOOK_SECONDS = 0.01
NO_ROW_SECONDS = 0.1

_log = get_logger("taskharbor.worker")


class Nursery:
    """All children of all generations. Times are the monotonic clock; the table's are boot time."""

    def __init__(
        self, config: WorkerConfig, table: SharedTable, caretaker: Caretaker, rng: Random
    ) -> None:
        self._config = config
        self._table = table
        self._caretaker = caretaker
        self._roster: Roster[Generation] = Roster(table.children)
        self._orphans: list[Child[Generation]] = []
        self._restarts = Restarts(rng)
        self._fork_at = 0.0
        self._watch_seconds = min(LONGEST_WATCH_SECONDS, config.heartbeat_seconds / 2)
        self._watch_at = 0.0
        self._watched_since = boot_time()
        self.interrupted = 0
        """Children whose running jobs a stop cut short."""
        caretaker.lease_lost = self._lease_lost

    def __len__(self) -> int:
        return len(self._roster)

    def of(self, generation: Generation) -> int:
        return len(self._roster.of(generation))

    def pids(self) -> list[tuple[str, int]]:
        """The children that are there, by name."""
        return [(f"child {each.index}", each.pid) for each in self._roster if each.pid is not None]

    # --- birth -----------------------------------------------------------------------------

    def fill(self, generation: Generation, now: float) -> float:
        """Fork what is missing, when it is time to; when to be called again."""
        missing = self._config.concurrency - self._roster.serving(generation)
        if missing <= 0:
            return inf
        if now < self._fork_at:
            return self._fork_at
        for _ in range(missing):
            child = self._roster.add(generation, now)
            if child is None:  # a reload while the one before is still draining
                return now + NO_ROW_SECONDS
            self._table.clear(child.index, boot_time())
            generation.process.channel.send("fork", index=child.index, holder=child.holder)
        return inf

    def forked(self, frame: Frame) -> None:
        child = self._named(frame)
        if child is not None:
            child.pid = frame["pid"]
            if child.stopping:  # told to stop before it was there
                self._signal(child, signal.SIGTERM)

    def fork_failed(self, frame: Frame, now: float) -> None:
        child = self._named(frame)
        if child is not None:
            _log.error("a child could not be forked", error=frame["error"])
            self._roster.forget(child)
            self._fork_at = now + self._restarts.died(early=True)

    # --- death -----------------------------------------------------------------------------

    def exited(self, frame: Frame, now: float) -> None:
        """The generation has waited for the child."""
        child = self._roster.get(frame["index"])
        if child is not None and child.pid == frame["pid"]:
            self._bury(child, os.waitstatus_to_exitcode(frame["status"]), now)

    def generation_died(self, generation: Generation) -> None:
        """Its children die with it; ``look_at_orphans`` sees it."""
        for child in self._roster.of(generation):
            self._signal(child, signal.SIGKILL)
            self._orphans.append(child)

    def look_at_orphans(self, now: float) -> float:
        """Bury those that are gone; when to look again."""
        for child in list(self._orphans):
            if child.pid is None or process_state(child.pid) == "gone":
                self._orphans.remove(child)
                self._bury(child, -signal.SIGKILL, now)
        return now + ORPHAN_LOOK_SECONDS if self._orphans else inf

    def _bury(self, child: Child[Generation], code: int, now: float) -> None:
        state = self._table.read(child.index)
        delay = self._restarts.died(early=died_young(child, code, state, now))
        self._fork_at = max(self._fork_at, now + delay)
        report = self._roster.remove(child, code, state, boot_time())
        self._caretaker.report(report)
        # One that was idle, and slow to leave, interrupted nothing.
        self.interrupted += report.cause == "stop" and bool(state.started)
        log = _log.debug if report.cause == "ended" else _log.warning
        log(
            f"child {describe_code(code)}",
            child=child.index,
            pid=child.pid,
            cause=report.cause,
            job_ids=[slot.job_id for slot in state.started],
            replaced_in_seconds=round(delay, 3),
        )

    # --- life ------------------------------------------------------------------------------

    def was_stopped(self) -> None:
        """This process itself did not run for a while: nobody's silence counts yet."""
        self._watched_since = boot_time()

    def watch(self, now: float) -> float:
        """Look at every row; when to look again."""
        if now < self._watch_at:
            return self._watch_at
        boot_now = boot_time()
        soonest = boot_now + self._watch_seconds
        for child in self._roster:
            finding = look(
                self._table.read(child.index),
                boot_now,
                silent_after=self._config.silent_after_seconds,
                watched_since=self._watched_since,
            )
            self._act(child, finding)
            soonest = min(soonest, finding.next_deadline or inf)
        self._watch_at = now + soonest - boot_now
        return self._watch_at

    def _act(self, child: Child[Generation], finding: Finding) -> None:
        if child.pid is None or child.killed is not None:
            return
        if finding.overdue:
            fences = tuple(slot.fence for slot in finding.overdue)
            job_ids = [slot.job_id for slot in finding.overdue]
            _log.warning("killing a child: hard time limit", child=child.index, job_ids=job_ids)
            self._kill_for(child, fences)
            return
        if finding.silent:
            running = process_state(child.pid) == "running"
            if not child.silent:
                _log.warning(
                    "a child has no heartbeat; " + ("renewing" if running else "not renewing"),
                    child=child.index,
                    pid=child.pid,
                    job_ids=[slot.job_id for slot in finding.renewable],
                )
            self._caretaker.silent(child.holder, finding.renewable, renew=running)
        child.silent = finding.silent

    def _lease_lost(self, holder: str, fences: list[int]) -> None:
        """Maintenance could not renew these leases of a silent child."""
        for child in self._roster:
            if child.holder == holder and child.silent and child.killed is None:
                # It may have finished the job, and spoken, since it was asked about.
                started = {slot.fence for slot in self._table.read(child.index).started}
                lost = tuple(fence for fence in fences if fence in started)
                if lost:
                    _log.warning("killing a child: its lease is lost", child=child.index)
                    self._kill_for(child, lost)

    def _kill_for(self, child: Child[Generation], fences: tuple[int, ...]) -> None:
        child.killed = "limit"
        child.limit_fences = fences
        self._signal(child, signal.SIGKILL)

    # --- stopping --------------------------------------------------------------------------

    def stop(self, kill_at: float, generation: Generation | None = None) -> None:
        """Tell the children (of one generation) to stop; what runs at ``kill_at`` is killed."""
        for child in self._roster:
            if generation is None or child.generation is generation:
                child.kill_at = min(kill_at, inf if child.kill_at is None else child.kill_at)
                self._signal(child, signal.SIGTERM)

    def quit(self, kill_at: float) -> None:
        """Tell all children to end at once, giving back what they can."""
        for child in self._roster:
            child.kill_at = kill_at
            self._signal(child, signal.SIGQUIT)

    def enforce(self, now: float) -> float:
        """Kill those whose grace is over; when the next one's is."""
        next_at = inf
        for child in self._roster:
            if child.kill_at is None or child.killed is not None or child.pid is None:
                continue
            if child.kill_at > now:
                next_at = min(next_at, child.kill_at)
                continue
            _log.warning("killing a child: its grace is over", child=child.index, pid=child.pid)
            child.killed = "stop"
            self._signal(child, signal.SIGKILL)
        return next_at

    def _signal(self, child: Child[Generation], number: signal.Signals) -> None:
        if child.pid is None:
            return
        try:
            os.kill(child.pid, number)
        except ProcessLookupError:
            pass  # dead already: its generation is about to say so

    def _named(self, frame: Frame) -> Child[Generation] | None:
        child = self._roster.get(frame["index"])
        return child if child is not None and child.holder == frame["holder"] else None
