"""Flows under many processes at once, and under their sudden deaths."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import cast

import pytest

from taskharbor import defaults
from taskharbor.clock import ManualClock
from taskharbor.conformance import racer
from taskharbor.conformance.flow_support import FlowSuite
from taskharbor.conformance.harness import Harness
from taskharbor.conformance.rules.races import Racers
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import all_pages, get, settle, take
from taskharbor.drivers.base import JobFilter
from taskharbor.drivers.flows import FlowDriver
from taskharbor.flow.plan import FlowState
from taskharbor.lease import Guard, Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import State

_MEMBERS = {"default": 2_000, "thorough": 10_000}
DEADLINE_SECONDS = 240.0


def _members() -> int:
    """How many a large chord has: ``TASKHARBOR_CONFORMANCE`` is ``default`` or ``thorough``."""
    return _MEMBERS[os.environ.get("TASKHARBOR_CONFORMANCE", "default")]


def _store(driver: FlowDriver, size: int) -> None:
    for part in racer.fan("fan", size, part=defaults.BATCH):
        driver.enqueue_flow(part)


class FlowRaceRules(FlowSuite):
    """For drivers that are shared and keep flows."""

    @pytest.fixture
    def live_flows(self, harness: Harness) -> Iterator[FlowDriver]:
        yield cast("FlowDriver", harness.connect())
        harness.close()

    @pytest.fixture
    def flow_racers(self) -> Iterator[Racers]:
        """Processes of the test's own: it may kill them."""
        racers = Racers()
        yield racers
        racers.stop()

    @pytest.mark.timeout(600)
    @in_one_shard
    def test_8_processes_that_end_a_chord_release_its_callback_once(
        self, live_flows: FlowDriver, harness: Harness, flow_racers: Racers
    ) -> None:
        size = _members()
        _store(live_flows, size)
        taken = chain.from_iterable(flow_racers.run(racer.drain, harness.url, limit=20))
        leases = Counter(job_id for job_id, _ in taken)
        # Who comes when everything is running goes home before the last settle frees the callback.
        leases.update(job_id for job_id, _ in racer.drain(live_flows, 8, limit=20))
        assert len(leases) == size + 2
        assert set(leases.values()) == {1}
        flow = live_flows.flow("fan")
        assert flow is not None
        assert flow.state is FlowState.SUCCEEDED
        assert flow.finished[State.SUCCEEDED] == size + 2

    @pytest.mark.timeout(600)
    @in_one_shard
    def test_processes_killed_while_a_fan_is_released_leave_it_to_the_others(
        self, live_flows: FlowDriver, harness: Harness, flow_racers: Racers
    ) -> None:
        size = 4 * defaults.FLOW_PAGE
        _store(live_flows, size)
        flow_racers.start(racer.drain, harness.url, limit=5)
        _wait_until(lambda: _succeeded(live_flows) >= 20)
        flow_racers.kill()
        _end_all(live_flows)
        flow = live_flows.flow("fan")
        assert flow is not None
        assert flow.state is FlowState.SUCCEEDED
        # Ended once: a lease that died with its process was handed back without an entry.
        assert len(get(live_flows, "fan-end").history) == 1

    @pytest.mark.timeout(600)
    def test_what_processes_killed_while_they_store_flows_leave_never_runs(
        self, live_flows: FlowDriver, harness: Harness, flow_racers: Racers
    ) -> None:
        flow_racers.start(racer.store_flows, harness.url, size=500)
        _wait_until(lambda: len(live_flows.list_flows().flows) >= 10)
        flow_racers.kill()
        assert take(live_flows, 10) == []
        states = {found.state for found in all_pages(live_flows, limit=1000)}
        assert states == {State.BLOCKED}
        later = live_flows.promote(1).now + defaults.UNSEALED_SECONDS + 1.0
        pruner = cast("FlowDriver", harness.connect(ManualClock(later)))
        while pruner.prune(1000):
            pass
        assert pruner.list_flows().flows == []
        assert all_pages(pruner) == []


def _succeeded(driver: FlowDriver) -> int:
    flow = driver.flow("fan")
    return 0 if flow is None else flow.finished[State.SUCCEEDED]


def _end_all(driver: FlowDriver) -> None:
    """Hand back what the dead held, and end everything that comes, until nothing is left. The last
    call of a process may arrive after its death."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        running = all_pages(driver, JobFilter(state=State.RUNNING), limit=1000)
        lost = [Settlement.release(one.id, one.fence or 0, guard=Guard.ANY) for one in running]
        settle(driver, *lost)
        more = driver.promote(1000).more
        leases = take(driver, 500)
        done = [Settlement.succeed(lease.id, lease.fence, None) for lease in leases]
        assert {one.verdict for one in settle(driver, *done)} <= {Verdict.APPLIED}
        if not running and not leases and not more:
            return
    raise AssertionError("there is always something left to be done")


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.002)
