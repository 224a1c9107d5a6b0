"""Where the suite finds a store: what a driver's author writes a fixture for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

from taskharbor import defaults
from taskharbor.clock import Clock
from taskharbor.conformance.sharding import InOneShard
from taskharbor.drivers import registry
from taskharbor.drivers.base import InspectableDriver, JobFilter, Migratable
from taskharbor.drivers.flows import FlowDriver, FlowInfo
from taskharbor.lease import Guard
from taskharbor.settlement import Settlement
from taskharbor.states import State


class Harness:
    """One empty store, for one test.

    Most drivers need no more than ``Harness(url)``, where ``url`` names an empty namespace, file
    or database; everything else has a default. ``connect`` goes through the registry, so the URL's
    scheme must be registered. Subclass it for a store that needs more.

    Making an empty store for every test may be slow. Then make one for many tests and say
    ``reuse``: it is emptied after each.
    """

    def __init__(self, url: str, *, reuse: bool = False) -> None:
        self.url = url
        self.in_one_shard = False
        """Set by the suite for rules about jobs that lie together."""
        self._reuse = reuse
        self._clock: Clock | None = None
        self._drivers: list[InspectableDriver] = []

    def connect(self, clock: Clock | None = None) -> InspectableDriver:
        """A new driver on this store, its schema migrated. With ``shared`` among its capabilities
        all drivers of one harness see the same jobs; else a test makes only one."""
        driver = registry.connect(self.url, clock=clock)
        self._clock = clock
        self._drivers.append(driver)
        if isinstance(driver, Migratable) and driver.capabilities.migrates:
            driver.migrate()
        if self.in_one_shard and driver.capabilities.sharded:
            return cast("InspectableDriver", InOneShard(driver, self.beside))
        return driver

    def close(self) -> None:
        """Disconnect, and empty a store that is to be used again. The suite calls it after each
        test."""
        if self._reuse and self._drivers:
            empty(self.connect(self._clock))
        self.disconnect()

    def disconnect(self) -> None:
        """Close every driver that ``connect`` made."""
        while self._drivers:
            self._drivers.pop().close()

    def crash(self) -> None:
        """End the store as roughly as it can end, and start it again; for ``Durable``.

        A store that lives in a server kills it here (SIGKILL). For a store of files there is
        nothing to kill: the default only closes the connections.
        """
        self.disconnect()

    def page_flows_by(self, size: int) -> None:
        """From here to ``close``, one call moves at most ``size`` edges and jobs of flows.

        For a store that has this number elsewhere than in ``defaults.FLOW_PAGE``, which the suite
        changes itself. One that can't be changed keeps its own.
        """

    def beside(self, name: str) -> str:
        """For ``sharded``: ``name``, a "-", and then, without another "-", whatever makes it a job
        id, flow id and idempotency key of one shard, the same for every name."""
        raise NotImplementedError("the driver says sharded: give its harness a beside()")

    def transaction(self) -> AbstractContextManager[Any]:
        """An open transaction of the caller's own, for ``Transactional``: committed when the block
        ends, rolled back when it raises."""
        raise NotImplementedError(
            "the driver says transactional_enqueue: give its harness a transaction()"
        )

    # --- for TransactionalSettle ----------------------------------------------------------------

    def write(self, connection: Any, what: str) -> None:
        """Write ``what`` down as a task would, through the ``connection`` of its transaction."""
        raise NotImplementedError("the driver says transactional_settle: give its harness write()")

    def written(self) -> list[str]:
        """All that was written down in this test and is committed, sorted."""
        raise NotImplementedError(
            "the driver says transactional_settle: give its harness written()"
        )

    def ways_out(self) -> Mapping[str, Callable[[Any], None]]:
        """By name, the ways in which a task may end its transaction through its ``connection``:
        to commit it, to roll it back, to begin another one after that, also one that does not see
        what others commit, if the store has such."""
        raise NotImplementedError(
            "the driver says transactional_settle: give its harness ways_out()"
        )


def empty(driver: InspectableDriver) -> None:
    """Leave no job, flow, key or pause in the store. Retired holders and terms stay."""
    if driver.capabilities.flows:
        _empty_of_flows(cast("FlowDriver", driver))
    _end_attempts(driver)
    while driver.purge(JobFilter()):
        pass
    for queue in driver.queues():
        driver.resume(queue.name)


def _end_attempts(driver: InspectableDriver) -> None:
    page = driver.list_jobs(JobFilter(state=State.RUNNING))
    while page.jobs or page.cursor:
        if page.jobs:
            driver.exchange("", [_given_up(job.id, job.fence or 0) for job in page.jobs])
        page = driver.list_jobs(JobFilter(state=State.RUNNING), cursor=page.cursor)


def _empty_of_flows(driver: FlowDriver) -> None:
    for flow in _all_flows(driver):
        driver.cancel_flow(flow.id)
    _end_attempts(driver)
    while driver.promote(defaults.BATCH).more:
        pass
    for flow in _all_flows(driver):
        driver.delete_flow(flow.id)
    while driver.prune(defaults.BATCH):
        pass


def _all_flows(driver: FlowDriver) -> list[FlowInfo]:
    page = driver.list_flows()
    flows = page.flows
    while page.cursor:
        page = driver.list_flows(cursor=page.cursor)
        flows += page.flows
    return flows


def _given_up(job_id: str, fence: int) -> Settlement:
    return Settlement.die(job_id, fence, error=None, guard=Guard.ANY)
