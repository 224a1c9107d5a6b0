"""The supervisor's side of the maintenance process: keeps it running, and reports to it.

A report is kept until it is acknowledged, and sent again to a new maintenance process.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

from taskharbor.errors import ConfigurationError
from taskharbor.ids import new_id
from taskharbor.maintenance.lost import LostChild
from taskharbor.worker.banner import without_secrets
from taskharbor.worker.config import WorkerConfig
from taskharbor.worker.logs import get_logger
from taskharbor.worker.restarts import Restarts
from taskharbor.worker.subprocesses import Subprocess
from taskharbor.worker.table import SlotState
from taskharbor.worker.wake import Wake

MODULE = "taskharbor.maintenance.process"
HUNG_SECONDS = 60.0
"""Without a sign of life for this long it is killed and started anew: longer than any driver's
timeouts. It says that it is alive every 2 s (``process.ALIVE_SECONDS``)."""
STOP_SECONDS = 5.0

_log = get_logger("taskharbor.worker")


class Caretaker:
    """Starts with ``serve``. ``lease_lost(holder, fences)`` is called for the leases of silent
    children that turned out to be lost, ``losses(fields)`` with attempts that ended with their
    worker (``Loss.to_fields``)."""

    def __init__(self, config: WorkerConfig, wake: Wake, rng: Random) -> None:
        self._config = config
        self._wake = wake
        self._restarts = Restarts(rng)
        self._holder = f"maintenance-{new_id()}"
        self.lease_lost: Callable[[str, list[int]], None] = _ignore
        self.losses: Callable[[list[list[Any]]], None] = _ignore
        self._process: Subprocess | None = None
        self._unsettled: dict[int, LostChild] = {}
        self._heard_at = 0.0
        self._start_at: float | None = None
        self._draining = False
        self.serving = False
        """Whether it was told to start."""
        self.ready = False
        """Whether it was ready once: only then may children start."""
        self.refused: str | None = None
        """Why the store can't ever work: found before anything ran, or later and for good."""

    @property
    def process(self) -> Subprocess | None:
        return self._process

    @property
    def settled(self) -> bool:
        """Every report was acknowledged."""
        return not self._unsettled

    @property
    def unsettled(self) -> int:
        return len(self._unsettled)

    def serve(self, url: str, now: float) -> None:
        """Start it for the store at ``url``. Raises ConfigurationError if it serves another one:
        what is held in one store can't be settled in the other."""
        if self.serving and self._config.url == url:
            return
        if self.serving:
            raise ConfigurationError(
                f"the app's store is now {without_secrets(url)}, but this worker runs on "
                f"{without_secrets(self._config.url or '')}; restart the worker"
            )
        self.serving = True
        self._config = self._config.with_url(url)
        self._start_at = now

    def report(self, child: LostChild) -> None:
        self._unsettled[child.number] = child
        self._send(child)

    def silent(self, holder: str, leases: tuple[SlotState, ...], *, renew: bool) -> None:
        # Not queued: said again at the next look.
        if self._process is not None and not self._process.channel.pending:
            pairs = [(slot.job_id, slot.fence) for slot in leases]
            self._process.channel.send("silent", holder=holder, leases=pairs, renew=renew)

    def drain(self) -> None:
        """The children stop: nobody needs to be woken any more."""
        self._draining = True
        if self._process is not None:
            self._process.channel.send("draining")

    def tick(self, now: float) -> float:
        """Start it when it is time to, notice its end; when to be called again."""
        if self._process is not None and self._process.ended():
            self._died(now)
        if self._process is not None and now - self._heard_at > HUNG_SECONDS:
            _log.error("maintenance hangs; starting it anew", silent_seconds=HUNG_SECONDS)
            self._process.kill()
            self._died(now)
        if self._process is None and self._start_at is not None and now >= self._start_at:
            self._start(now)
        if self._process is not None:
            return self._heard_at + HUNG_SECONDS
        return inf if self._start_at is None else self._start_at

    def was_stopped(self, now: float) -> None:
        """This process itself did not run for a while: silence does not count yet."""
        self._heard_at = now

    def receive(self, now: float) -> None:
        """Handle what it says."""
        if self._process is None:
            return
        for frame in self._process.channel.receive():
            self._heard_at = now
            match frame["kind"]:
                case "ready":
                    self._became_ready()
                case "settled":
                    self._unsettled.pop(frame["number"], None)
                case "lease_lost":
                    self.lease_lost(frame["holder"], frame["fences"])
                case "losses":
                    self.losses(frame["losses"])
                case "failed":
                    self._failed(frame["error"], final=frame["final"])

    def end(self) -> None:
        """Ask it to end, and wait; it gives up the lead on its way."""
        if self._process is not None:
            self._process.channel.send("stop")
            self._process.end(STOP_SECONDS)
            self._process = None

    def _start(self, now: float) -> None:
        self._process = Subprocess(
            MODULE, self._wake.fds, config=self._config.to_json(), holder=self._holder
        )
        self._heard_at = now
        # In its channel before it runs: it settles first of all.
        for child in self._unsettled.values():
            self._send(child)
        if self._draining:
            self.drain()

    def _died(self, now: float) -> None:
        assert self._process is not None
        self.receive(now)
        delay = self._restarts.died(early=True)
        if self.refused is None:
            _log.error(
                "maintenance died; starting it anew", ending=self._process.ending, seconds=delay
            )
        self._process.channel.close()
        self._process = None
        self._start_at = now + delay

    def _became_ready(self) -> None:
        self.ready = True
        self._restarts.lives()

    def _failed(self, error: str, *, final: bool) -> None:
        if final or not self.ready:
            self.refused = error
        _log.error("maintenance can't use the store", error=error)

    def _send(self, child: LostChild) -> None:
        if self._process is not None:
            self._process.channel.send("lost", **child.to_fields())


def _ignore(*event: object) -> None:
    """Until somebody wants to know."""
