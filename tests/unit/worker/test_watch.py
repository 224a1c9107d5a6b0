"""What the table's rows say must be done about living children."""

from __future__ import annotations

from taskharbor.worker.table import ChildState, Phase, SlotState
from taskharbor.worker.watch import Finding, look


def slot(
    fence: int, *, deadline: float | None = None, phase: Phase = Phase.STARTED, torn: bool = False
) -> SlotState:
    return SlotState(f"job-{fence}", fence, phase, 0.0, deadline, torn)


def at(now: float, *slots: SlotState, beat: float = 0.0, watched_since: float = 0.0) -> Finding:
    return look(ChildState(beat, slots), now, silent_after=15.0, watched_since=watched_since)


def test_a_child_with_a_heartbeat_needs_nothing() -> None:
    assert at(15.0, slot(1)) == Finding((), False, (), None)


def test_a_child_without_heartbeat_has_its_started_jobs_renewed() -> None:
    finding = at(15.1, slot(1), slot(2, phase=Phase.FINISHED), slot(3, torn=True))
    assert finding.silent
    assert [s.fence for s in finding.renewable] == [1]


def test_silence_counts_from_when_the_supervisor_itself_could_look() -> None:
    assert not at(100.0, slot(1), watched_since=90.0).silent
    assert at(106.0, slot(1), watched_since=90.0).silent


def test_a_job_past_its_hard_deadline_is_overdue_and_the_next_one_is_announced() -> None:
    finding = at(10.0, slot(1, deadline=10.0), slot(2, deadline=12.0), slot(3, deadline=11.0))
    assert [s.fence for s in finding.overdue] == [1]
    assert finding.next_deadline == 11.0


def test_neither_finished_nor_torn_jobs_are_overdue() -> None:
    done = slot(1, deadline=5.0, phase=Phase.FINISHED)
    assert at(10.0, done, slot(2, deadline=5.0, torn=True)).overdue == ()
