"""``taskharbor maintenance``: the duties of a worker's maintenance process, without a worker.

For deployments that want them on a machine of their own. Any number may run, beside any number of
workers: one of all leads, the others stand by.
"""

from __future__ import annotations

import faulthandler
import select
import signal
import socket
import time
from dataclasses import dataclass
from functools import partial
from random import Random

from taskharbor import defaults
from taskharbor.errors import ConfigurationError, InvalidLease, StoreUnavailable
from taskharbor.lease import check_lease_seconds
from taskharbor.maintenance.listener import WAIT_SECONDS, ScheduleListener
from taskharbor.maintenance.service import Listeners, Service, open_shared
from taskharbor.worker.banner import without_secrets
from taskharbor.worker.config import ExitCode, LogFormat, LogLevel
from taskharbor.worker.logs import configure_logging, get_logger
from taskharbor.worker.wake import Wake

_log = get_logger("taskharbor.maintenance")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceConfig:
    """``lease_seconds`` is the length of the workers' leases: how long to leave expired leases
    alone after an outage. Raises ConfigurationError."""

    url: str
    lease_seconds: float = defaults.LEASE_SECONDS
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"

    def __post_init__(self) -> None:
        try:
            check_lease_seconds(self.lease_seconds)
        except InvalidLease as error:
            raise ConfigurationError(f"--lease: {error}") from error


def run_maintenance(config: MaintenanceConfig) -> int:
    """Run until TERM or INT; the exit code.

    Raises ConfigurationError and StoreErrors for a store that can't ever work; one that is only
    away is waited for. When a newer TaskHarbor migrates it, this ends with
    ``ExitCode.CONFIGURATION``. May be killed at any time: every step is one transaction of the
    store.
    """
    configure_logging(config.log_level, config.log_format, role="maintenance")
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    hinted = Wake.create()
    service = _service(config)
    listener = ScheduleListener(hint=hinted.add, rng=Random())
    with _StopSignal() as stop:
        _connect(service)
        _log.info("maintenance started", store=without_secrets(config.url))
        while not (stop.asked(service.step(time.monotonic()), hinted) or service.outdated):
            listener.follow(service.driver, leads=service.leads)
            if hinted.take():
                service.hint()
        listener.stop()
        if listener.join(2 * WAIT_SECONDS):
            service.close()
    if service.outdated is not None:
        _log.error("maintenance can't use the store", error=str(service.outdated))
        return ExitCode.CONFIGURATION
    _log.info("maintenance stopped")
    return ExitCode.OK


def _service(config: MaintenanceConfig) -> Service:
    return Service(
        partial(open_shared, config.url),
        lease_seconds=config.lease_seconds,
        listeners=Listeners(
            promoted=lambda: None,
            settled=lambda number: None,
            losses=lambda losses: None,
            lease_lost=lambda holder, lost: None,
        ),
        rng=Random(),
    )


def _connect(service: Service) -> None:
    try:
        service.connect()
    except StoreUnavailable as error:
        _log.error("the store is away; trying again until it is back", error=str(error))


class _StopSignal:
    """TERM and INT as something to wait for."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self._seen = False

    def __enter__(self) -> _StopSignal:
        self._wakeup = signal.set_wakeup_fd(self._theirs.fileno())
        self._handlers = {
            number: signal.signal(number, self._see) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._ours.close()
        self._theirs.close()

    def asked(self, seconds: float, hinted: Wake) -> bool:
        """Whether to stop; waits for that, or for a hint, up to ``seconds``."""
        if not self._seen:
            readers: list[socket.socket | Wake] = [self._ours, hinted]
            select.select(readers, [], [], seconds)
        return self._seen

    def _see(self, number: int, frame: object) -> None:
        self._seen = True
