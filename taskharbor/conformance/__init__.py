"""The conformance suite: what every driver must do, as tests that any driver can run.

Give a test class a fixture and the part that every driver runs, and add the parts that its
capabilities call for::

    from taskharbor.conformance import Conformance, Harness

    class TestMyDriver(Conformance):
        @pytest.fixture
        def harness(self, tmp_path):
            return Harness(f"mystore://{tmp_path}/jobs")

Needs pytest and Hypothesis: ``pip install 'taskharbor[conformance]'``.
"""

from __future__ import annotations

import pytest

# Before the parts are imported: a failing rule then shows both sides of its comparison.
pytest.register_assert_rewrite(
    "taskharbor.conformance.machine",
    "taskharbor.conformance.rules",
    "taskharbor.conformance.support",
)

from taskharbor.conformance.harness import Harness, empty  # noqa: E402
from taskharbor.conformance.machine import ModelRules  # noqa: E402
from taskharbor.conformance.rules.enqueueing import EnqueueRules  # noqa: E402
from taskharbor.conformance.rules.keys import KeyRules  # noqa: E402
from taskharbor.conformance.rules.leases import (  # noqa: E402
    ExpiredRules,
    ExtendRules,
    HeldRules,
    RetireRules,
)
from taskharbor.conformance.rules.operating import (  # noqa: E402
    CancelRules,
    DeleteRules,
    HostileRules,
    LookRules,
    RequeueRules,
)
from taskharbor.conformance.rules.reserving import ReserveRules  # noqa: E402
from taskharbor.conformance.rules.seeds import SeedRules  # noqa: E402
from taskharbor.conformance.rules.settling import SettleRules  # noqa: E402
from taskharbor.conformance.rules.timing import (  # noqa: E402
    LeadRules,
    PromoteRules,
    RetentionRules,
)
from taskharbor.conformance.rules.verdicts import StateRules, VerdictRules  # noqa: E402
from taskharbor.conformance.rules.waiting import ResultRules, WaitRules  # noqa: E402


class Conformance(
    SeedRules,
    EnqueueRules,
    KeyRules,
    ReserveRules,
    VerdictRules,
    StateRules,
    SettleRules,
    ExtendRules,
    HeldRules,
    RetireRules,
    ExpiredRules,
    PromoteRules,
    RetentionRules,
    LeadRules,
    ResultRules,
    WaitRules,
    CancelRules,
    LookRules,
    RequeueRules,
    DeleteRules,
    HostileRules,
    ModelRules,
):
    """What every driver must do."""


__all__ = ["Conformance", "Harness", "empty"]
