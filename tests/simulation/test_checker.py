"""A checker that can't fail proves nothing: each fault here must break a history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from taskharbor.drivers.base import Extended
from taskharbor.drivers.memory.flows import FlowKeeper
from taskharbor.flow.plan import EdgeKind
from taskharbor.flow.progress import Counters, Mark
from taskharbor.lease import Reservation
from taskharbor.worker.held import Held
from taskharbor.worker.planner import Planner
from taskharbor.worker.recovery import Recovery
from taskharbor.worker.settler import Batch, Settler
from tests.simulation.broken import Broken
from tests.simulation.play import play_many

Patch = Callable[[pytest.MonkeyPatch], None]


def start_expired_jobs(patch: pytest.MonkeyPatch) -> None:
    real = Settler.claim
    patch.setattr(Settler, "claim", lambda self, now: real(self, -1.0))


def count_leases_from_the_reply(patch: pytest.MonkeyPatch) -> None:
    real = Planner.answered

    def late(self: Planner, ask: Any, reply: Any, *, sent_at: float, now: float) -> Any:
        return real(self, ask, reply, sent_at=now, now=now)

    patch.setattr(Planner, "answered", late)


def adopt_without_proof(patch: pytest.MonkeyPatch) -> None:
    def adopt(
        self: Settler, unknown: Sequence[Reservation], answers: list[Extended], deadline: float
    ) -> None:
        self._waiting.extend(Held(reservation, deadline) for reservation in unknown)

    patch.setattr(Settler, "adopt", adopt)


def never_ask_what_we_hold(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recovery, "reserve_unanswered", lambda self, now: None)


def ask_at_once_what_we_hold(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("taskharbor.worker.recovery.ON_ITS_WAY_SECONDS", 0.0)


def start_before_the_urgent_is_settled(patch: pytest.MonkeyPatch) -> None:
    real = Settler.finish

    def finish(self: Settler, held: Held, settlement: Any, *, urgent: bool = False) -> None:
        real(self, held, settlement)

    patch.setattr(Settler, "finish", finish)


def drop_what_should_be_handed_back(patch: pytest.MonkeyPatch) -> None:
    def hand_back(self: Settler) -> int:
        self._waiting.clear()
        return 0

    patch.setattr(Settler, "hand_back", hand_back)


def forget_unanswered_settlements(patch: pytest.MonkeyPatch) -> None:
    def unanswered(self: Settler, batch: Batch) -> None:
        self._forget(batch)
        self.urgent -= sum(held.urgent for held in batch)

    patch.setattr(Settler, "unanswered", unanswered)


def leave_before_all_is_settled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Planner, "_nothing_left", lambda self, now: not self._settler.running)


def leave_edges_unmarked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FlowKeeper, "note", lambda self, now, record: None)


def release_at_the_first_end(patch: pytest.MonkeyPatch) -> None:
    real = Counters.moved

    def moved(self: Counters, kind: EdgeKind, old: Mark, new: Mark) -> Counters:
        return real(self, kind, old, new)._replace(pending=0)

    patch.setattr(Counters, "moved", moved)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (start_expired_jobs, "suspensions"),
        (count_leases_from_the_reply, "suspensions"),
        (adopt_without_proof, "outages"),
        (never_ask_what_we_hold, "lost_replies"),
        (ask_at_once_what_we_hold, "late_requests"),
        (start_before_the_urgent_is_settled, "calm"),
        (drop_what_should_be_handed_back, "terminations"),
        (forget_unanswered_settlements, "lost_replies"),
        (leave_before_all_is_settled, "calm"),
        (leave_edges_unmarked, "flows"),
        (release_at_the_first_end, "flows"),
    ],
)
def test_a_fault_breaks_a_history(monkeypatch: pytest.MonkeyPatch, fault: Patch, kind: str) -> None:
    fault(monkeypatch)
    with pytest.raises(Broken, match="--first-seed"):
        play_many(kind, 0, 200)
