"""The suite, put together: one part for every driver and one for each capability."""

from __future__ import annotations

from urllib.parse import urlsplit

from taskharbor.conformance.machine import ModelRules
from taskharbor.conformance.rules.capable import (
    DurableRules,
    MigratableRules,
    SharingRules,
    TransactionalRules,
)
from taskharbor.conformance.rules.enqueueing import EnqueueRules
from taskharbor.conformance.rules.flow_corners import BlockedRules, FlowCornerRules
from taskharbor.conformance.rules.flow_histories import FlowHistoryRules
from taskharbor.conformance.rules.flow_races import FlowRaceRules
from taskharbor.conformance.rules.flowing import FlowRules
from taskharbor.conformance.rules.keys import KeyRules
from taskharbor.conformance.rules.leases import ExpiredRules, ExtendRules, HeldRules, RetireRules
from taskharbor.conformance.rules.looking import LookRules
from taskharbor.conformance.rules.operating import (
    CancelRules,
    DeleteRules,
    HostileRules,
    RequeueRules,
)
from taskharbor.conformance.rules.races import RaceRules, ThreadRules
from taskharbor.conformance.rules.reserving import ReserveRules
from taskharbor.conformance.rules.seeds import SeedRules
from taskharbor.conformance.rules.settling import SettleRules
from taskharbor.conformance.rules.sharded import FlowShardRules, ShardRules
from taskharbor.conformance.rules.timing import LeadRules, PromoteRules, RetentionRules
from taskharbor.conformance.rules.transacting import (
    TransactionalFlowRules,
    TransactionalSettleRules,
)
from taskharbor.conformance.rules.verdicts import StateRules, VerdictRules
from taskharbor.conformance.rules.waiting import HintRules, ResultRules, WaitRules
from taskharbor.conformance.support import Suite
from taskharbor.drivers.base import Capabilities, InspectableDriver
from taskharbor.drivers.base import Transactional as Settles


class Shared(SharingRules, RaceRules):
    """For ``Capabilities.shared``."""


class Durable(DurableRules):
    """For ``Capabilities.durable``; the harness may have to override ``crash``."""


class Transactional(TransactionalRules):
    """For ``Capabilities.transactional_enqueue``; the harness gives a ``transaction``."""


class TransactionalSettle(TransactionalSettleRules):
    """For ``Capabilities.transactional_settle``; the harness gives ``write``, ``written`` and
    ``ways_out``."""


class TransactionalFlowSettle(TransactionalSettle, TransactionalFlowRules):
    """For ``Capabilities.transactional_settle`` and ``flows``: in place of
    ``TransactionalSettle``."""


class Migrates(MigratableRules):
    """For ``Capabilities.migrates``."""


class Flowing(FlowRules, BlockedRules, FlowCornerRules, FlowHistoryRules):
    """For ``Capabilities.flows``."""


class SharedFlowing(Flowing, FlowRaceRules):
    """For ``Capabilities.flows`` and ``shared``: in place of ``Flowing``."""


class ScheduleHints(HintRules):
    """For ``Capabilities.schedule_hints``."""


class Sharded(ShardRules):
    """For ``Capabilities.sharded``; the harness says what lies ``beside`` each other."""


class ShardedFlowing(Sharded, FlowShardRules):
    """For ``Capabilities.sharded`` and ``flows``: in place of ``Sharded``."""


class DriverRules(Suite):
    """The driver as an object."""

    def test_its_url_is_without_secrets(self, driver: InspectableDriver) -> None:
        """It is shown in banners and logs."""
        assert urlsplit(driver.url).scheme
        assert urlsplit(driver.url).password is None

    def test_it_may_be_closed_twice(self, driver: InspectableDriver) -> None:
        driver.results(["nobody"])
        driver.close()
        driver.close()


class Conformance(
    DriverRules,
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
    ThreadRules,
    ModelRules,
):
    """For every driver."""

    def test_the_parts_that_run_are_those_of_the_capabilities(
        self, driver: InspectableDriver
    ) -> None:
        """What a driver says it can is proven, and what it doesn't say is not run."""
        assert driver.capabilities == Capabilities(
            shared=isinstance(self, Shared),
            durable=isinstance(self, Durable),
            transactional_enqueue=isinstance(self, Transactional),
            transactional_settle=isinstance(self, TransactionalSettle),
            migrates=isinstance(self, Migrates),
            flows=isinstance(self, Flowing),
            schedule_hints=isinstance(self, ScheduleHints),
            sharded=isinstance(self, Sharded),
            row_locks=driver.capabilities.row_locks,
        )
        assert driver.capabilities.transactional_settle == isinstance(driver, Settles)
