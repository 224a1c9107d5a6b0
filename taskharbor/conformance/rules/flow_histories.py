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
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import Suite
from taskharbor.drivers.flows import FlowDriver

_EXAMPLES = {"default": 20, "thorough": 2000}
_SMALL_PAGE_SHARE = 2
"""A page of one edge takes many calls: so much fewer examples."""


def _profile(page: int) -> settings:
    examples = _EXAMPLES[os.environ.get("TASKHARBOR_CONFORMANCE", "default")]
    return settings(
        max_examples=examples if page > 1 else examples // _SMALL_PAGE_SHARE,
        stateful_step_count=30,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@in_one_shard
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
        harness: Harness,
        clock: ManualClock,
        monkeypatch: pytest.MonkeyPatch,
        page: int,
    ) -> None:
        """Also when each call moves no more than one edge."""
        monkeypatch.setattr(defaults, "FLOW_PAGE", page)
        harness.page_flows_by(page)

        class Machine(FlowMachine):
            def __init__(self) -> None:
                super().__init__(driver, clock)

        run_state_machine_as_test(Machine, settings=_profile(page))
