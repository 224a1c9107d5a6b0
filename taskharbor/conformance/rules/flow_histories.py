"""Flows under generated histories."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from taskharbor import defaults
from taskharbor.clock import ManualClock
from taskharbor.conformance.flow_machine import FlowMachine
from taskharbor.conformance.harness import Harness
from taskharbor.conformance.support import Suite
from taskharbor.drivers.flows import FlowDriver

_EXAMPLES = {"default": 20, "thorough": 2000}


def _profile() -> settings:
    examples = _EXAMPLES[os.environ.get("TASKHARBOR_CONFORMANCE", "default")]
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


class FlowHistoryRules(Suite):
    """The driver and the model of flows agree on whatever is done to them."""

    @pytest.fixture
    def driver(self, harness: Harness, clock: ManualClock) -> Iterator[FlowDriver]:
        yield cast("FlowDriver", harness.connect(clock))
        harness.close()

    @pytest.mark.timeout(3600)
    @pytest.mark.parametrize("page", [defaults.FLOW_PAGE, 1])
    def test_any_history_of_flows_looks_the_same_as_in_the_model(
        self,
        driver: FlowDriver,
        clock: ManualClock,
        monkeypatch: pytest.MonkeyPatch,
        page: int,
    ) -> None:
        """Also when each call moves no more than one edge; a store that moves in another process
        has its own page."""
        monkeypatch.setattr(defaults, "FLOW_PAGE", page)

        class Machine(FlowMachine):
            def __init__(self) -> None:
                super().__init__(driver, clock)

        run_state_machine_as_test(Machine, settings=_profile())
