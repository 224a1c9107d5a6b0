"""Children by their rows, and what their end means."""

from __future__ import annotations

import signal

import pytest

from taskharbor.worker.config import ExitCode
from taskharbor.worker.roster import YOUNG_SECONDS, Child, Roster, died_young
from taskharbor.worker.table import ChildState, Phase, SlotState

NOTHING = ChildState(0.0, ())


def slot(fence: int, deadline: float | None = None) -> SlotState:
    return SlotState(f"job-{fence}", fence, Phase.STARTED, 0.0, deadline)


def ran(*slots: SlotState) -> ChildState:
    return ChildState(0.0, slots)


@pytest.fixture
def roster() -> Roster[str]:
    return Roster(4)


def new(roster: Roster[str], generation: str = "g") -> Child[str]:
    child = roster.add(generation, 0.0)
    assert child is not None
    child.pid = 100 + child.index
    return child


def test_rows_are_given_out_once_and_again_when_free(roster: Roster[str]) -> None:
    children = [new(roster) for _ in range(4)]
    assert [child.index for child in children] == [0, 1, 2, 3]
    assert roster.add("g", 0.0) is None
    roster.remove(children[2], 0, NOTHING, 0.0)
    assert new(roster).index == 2


def test_every_child_has_a_holder_of_its_own(roster: Roster[str]) -> None:
    first = new(roster)
    roster.remove(first, 0, NOTHING, 0.0)
    second = new(roster)
    assert second.index == first.index
    assert second.holder != first.holder


def test_only_children_that_were_not_told_to_stop_serve(roster: Roster[str]) -> None:
    old, stopping, young = new(roster), new(roster), new(roster, "other")
    stopping.kill_at = 5.0
    assert roster.serving("g") == 1
    assert roster.of("g") == [old, stopping]
    assert roster.serving("other") == 1
    assert young.generation == "other"


def test_a_signal_nobody_sent_is_a_death_with_its_name(roster: Roster[str]) -> None:
    state = ran(slot(3))
    report = roster.remove(new(roster), -signal.SIGSEGV, state, 0.0)
    assert (report.cause, report.ending) == ("died", "was killed by SIGSEGV")
    assert report.slots == state.slots


def test_any_exit_code_of_a_task_is_a_death(roster: Roster[str]) -> None:
    for code in (1, 3, 255, ExitCode.INTERNAL, ExitCode.RETIRED):
        assert roster.remove(new(roster), code, ran(slot(1)), 0.0).cause == "died"


@pytest.mark.parametrize("code", [ExitCode.OK, ExitCode.RECYCLED, ExitCode.START_FAILED])
def test_what_a_child_does_as_asked_is_an_end(roster: Roster[str], code: int) -> None:
    assert roster.remove(new(roster), code, NOTHING, 0.0).cause == "ended"


def test_term_before_the_child_could_listen_is_an_end_if_we_sent_it(roster: Roster[str]) -> None:
    asked, struck = new(roster), new(roster)
    asked.kill_at = 30.0
    assert roster.remove(asked, -signal.SIGTERM, NOTHING, 0.0).cause == "ended"
    assert roster.remove(struck, -signal.SIGTERM, NOTHING, 0.0).cause == "died"


def test_a_forced_exit_in_a_stop_interrupts_what_ran(roster: Roster[str]) -> None:
    child = new(roster)
    child.kill_at = 30.0
    assert roster.remove(child, ExitCode.FORCED, ran(slot(1)), 0.0).cause == "stop"


def test_killed_for_a_limit_names_the_fences_we_killed_for(roster: Roster[str]) -> None:
    child = new(roster)
    child.killed, child.limit_fences = "limit", (2,)
    report = roster.remove(child, -signal.SIGKILL, ran(slot(1), slot(2)), 0.0)
    assert (report.cause, report.limit_fences) == ("limit", (2,))


def test_a_child_that_ended_itself_for_a_limit_names_the_overdue_jobs(roster: Roster[str]) -> None:
    state = ran(slot(1, 50.0), slot(2, 10.0), slot(3, 9.0), slot(4))
    report = roster.remove(new(roster), ExitCode.HARD_LIMIT, state, 12.0)
    assert (report.cause, set(report.limit_fences)) == ("limit", {2, 3})


def test_or_the_job_nearest_to_its_limit_when_clocks_disagree(roster: Roster[str]) -> None:
    state = ran(slot(1, 50.0), slot(2, 10.1), slot(4))
    report = roster.remove(new(roster), ExitCode.HARD_LIMIT, state, 10.0)
    assert report.limit_fences == (2,)


def test_reports_are_numbered(roster: Roster[str]) -> None:
    numbers = [roster.remove(new(roster), 0, NOTHING, 0.0).number for _ in range(3)]
    assert numbers == [1, 2, 3]


def test_dying_young_means_soon_and_without_having_run_anything(roster: Roster[str]) -> None:
    child = new(roster)
    assert died_young(child, -signal.SIGSEGV, NOTHING, 1.0)
    assert not died_young(child, -signal.SIGSEGV, NOTHING, YOUNG_SECONDS)
    assert not died_young(child, -signal.SIGSEGV, ran(slot(1)), 1.0)
    assert not died_young(child, ExitCode.RECYCLED, NOTHING, 1.0)
    assert died_young(child, ExitCode.START_FAILED, NOTHING, 100.0)
    child.kill_at = 5.0
    assert not died_young(child, -signal.SIGTERM, NOTHING, 1.0)
