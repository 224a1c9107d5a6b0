"""The conformance suite: what every driver must do, as tests that any driver can run.

Give a test class a fixture, and as bases the part that every driver runs and those that its
capabilities call for::

    from taskharbor.conformance import Conformance, Durable, Harness, Shared

    class TestMyDriver(Conformance, Shared, Durable):
        @pytest.fixture
        def harness(self, tmp_path):
            return Harness(f"mystore://{tmp_path}/jobs")

docs/driver-contract.md has the whole story. Needs pytest and Hypothesis:
``pip install 'taskharbor[conformance]'``.
"""

from __future__ import annotations

import pytest

# Before the parts are imported: a failing rule then shows both sides of its comparison.
pytest.register_assert_rewrite(
    "taskharbor.conformance.flow_machine",
    "taskharbor.conformance.flow_support",
    "taskharbor.conformance.machine",
    "taskharbor.conformance.rules",
    "taskharbor.conformance.support",
)

from taskharbor.conformance.harness import Harness, empty  # noqa: E402
from taskharbor.conformance.parts import (  # noqa: E402
    Conformance,
    Durable,
    Flowing,
    Migrates,
    ScheduleHints,
    Sharded,
    ShardedFlowing,
    Shared,
    SharedFlowing,
    Transactional,
    TransactionalFlowSettle,
    TransactionalSettle,
)

__all__ = [
    "Conformance",
    "Durable",
    "Flowing",
    "Harness",
    "Migrates",
    "ScheduleHints",
    "Sharded",
    "ShardedFlowing",
    "Shared",
    "SharedFlowing",
    "Transactional",
    "TransactionalFlowSettle",
    "TransactionalSettle",
    "empty",
]
