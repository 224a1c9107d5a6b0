"""The maintenance process of a worker: no user code, one driver.

    python -m taskharbor.maintenance.process CHANNEL WAKE_READ WAKE_WRITE PARENT

The first three are descriptors inherited from the supervisor, PARENT is its pid. The supervisor's
first message has the settings. It ends when the supervisor says so, closes the channel or dies,
never by a signal that a terminal or a service manager sends to all processes of a worker: it has to
settle what the children leave behind.
"""

from __future__ import annotations

import faulthandler
import select
import signal
import sys
import time
from functools import partial
from random import Random

from taskharbor.errors import StoreUnavailable, TaskHarborError
from taskharbor.maintenance.listener import WAIT_SECONDS, Listener, ScheduleListener
from taskharbor.maintenance.losses import Loss
from taskharbor.maintenance.lost import LostChild
from taskharbor.maintenance.service import Listeners, Service, Silent, open_shared
from taskharbor.worker.channel import Channel, Frame, await_start
from taskharbor.worker.config import ExitCode, WorkerConfig
from taskharbor.worker.lifeline import die_with_parent, name_process
from taskharbor.worker.logs import configure_logging, get_logger
from taskharbor.worker.signals import let_signals_in
from taskharbor.worker.wake import Wake

ALIVE_SECONDS = 2.0
"""How often the supervisor is told that the loop goes round."""

_log = get_logger("taskharbor.maintenance")


class MaintenanceProcess:
    """Drives a :class:`Service` by the supervisor's messages and the store's hints."""

    def __init__(self, channel: Channel, wake: Wake, config: WorkerConfig, holder: str) -> None:
        assert config.url is not None
        self._channel = channel
        self._wake = wake
        self._queues = config.queue_names
        self._rng = Random()
        self._hinted = Wake.create()
        self._listener: Listener | None = None
        self._schedule_listener = ScheduleListener(hint=self._hinted.add, rng=self._rng)
        self._alive_at = 0.0
        self._stopping = False
        self._refused = False
        self._service = Service(
            partial(open_shared, config.url),
            lease_seconds=config.lease_seconds,
            listeners=Listeners(
                promoted=wake.add,
                settled=self._settled,
                losses=self._losses,
                lease_lost=self._lease_lost,
            ),
            rng=self._rng,
            holder=holder,
        )

    def run(self) -> ExitCode:
        """Until the supervisor ends it. A store that can't ever work is reported at once, and one
        that no longer can as soon as that is known: what can still be settled then is, until the
        supervisor has stopped the children."""
        try:
            self._service.connect()
        except StoreUnavailable as error:
            _log.error("the store is away; trying again until it is back", error=str(error))
        except TaskHarborError as error:
            final = self._service.outdated is not None
            self._channel.send("failed", error=str(error), final=final)
            return ExitCode.CONFIGURATION
        self._channel.send("ready")
        while not (self._channel.closed or (self._stopping and self._service.idle)):
            self._turn()
        self._close()
        return ExitCode.OK

    def _turn(self) -> None:
        for frame in self._channel.receive():
            self._handle(frame)
        if self._channel.closed:
            return
        now = time.monotonic()
        sleep = self._service.step(now)
        self._refuse_if_outdated()
        self._listen()
        if now >= self._alive_at:
            self._channel.send("alive")
            self._alive_at = now + ALIVE_SECONDS
        sleep = min(sleep, self._alive_at - now)
        readers: list[Channel | Wake] = [self._channel, self._hinted]
        writers = [self._channel] if self._channel.pending else []
        ready, writable, _ = select.select(readers, writers, [], sleep)
        if writable:
            self._channel.flush()
        if self._hinted in ready:
            self._hinted.take()
            self._service.hint()

    def _refuse_if_outdated(self) -> None:
        """Tell the supervisor, once, that the store became a newer TaskHarbor's."""
        if self._service.outdated is not None and not self._refused:
            self._channel.send("failed", error=str(self._service.outdated), final=True)
            self._refused = True

    def _handle(self, frame: Frame) -> None:
        match frame.pop("kind"):
            case "lost":
                self._service.child_lost(LostChild.from_fields(frame))
            case "silent":
                leases = tuple((job_id, fence) for job_id, fence in frame["leases"])
                self._service.child_silent(Silent(frame["holder"], leases, frame["renew"]))
            case "draining":
                # Nobody is left to be woken; the thread ends while the children do.
                if self._listener is not None:
                    self._listener.stop()
            case "stop":
                self._stopping = True

    def _listen(self) -> None:
        driver = self._service.driver
        if self._listener is None and driver is not None:
            self._listener = Listener(
                driver, self._queues, hint=self._wake.add, busy=self._wake.untaken, rng=self._rng
            )
            self._listener.start()
        self._schedule_listener.follow(driver, leads=self._service.leads)

    def _settled(self, number: int) -> None:
        self._channel.send("settled", number=number)

    def _losses(self, losses: list[Loss]) -> None:
        if losses:
            self._channel.send("losses", losses=[loss.to_fields() for loss in losses])

    def _lease_lost(self, holder: str, fences: list[int]) -> None:
        self._channel.send("lease_lost", holder=holder, fences=fences)

    def _close(self) -> None:
        self._schedule_listener.stop()
        ended = True
        if self._listener is not None:
            self._listener.stop()
            ended = self._listener.join(2 * WAIT_SECONDS)
        if self._schedule_listener.join(2 * WAIT_SECONDS) and ended:
            self._service.close()


def main(arguments: list[str]) -> ExitCode:
    channel_fd, wake_read, wake_write, parent = map(int, arguments)
    die_with_parent(parent)
    name_process("th-maintenance")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    let_signals_in()
    channel = Channel.from_fd(channel_fd)
    start = await_start(channel)
    if start is None:
        return ExitCode.ORPHANED
    config = WorkerConfig.from_json(start["config"])
    configure_logging(config.log_level, config.log_format, role="maintenance")
    wake = Wake(wake_read, wake_write)
    return MaintenanceProcess(channel, wake, config, start["holder"]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
