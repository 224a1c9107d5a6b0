"""The shared table: what can be read of a child after it died in the middle of anything."""

import os
import signal
from collections.abc import Iterator

import pytest

from taskharbor.worker.table import Phase, SharedTable, boot_time


@pytest.fixture
def table() -> Iterator[SharedTable]:
    with SharedTable(3, 2) as table:
        yield table


def test_a_new_row_has_no_slots_and_no_heartbeat(table: SharedTable) -> None:
    assert table.read(1).slots == ()
    assert table.read(1).last_beat == 0.0


def test_started_then_finished_is_seen_in_that_child_only(table: SharedTable) -> None:
    child = table.child(1)
    child.started(0, "job-a", 7, 12.5, 99.0)
    child.started(1, "job-b", 8, 13.0)
    child.finished(1)
    first, second = table.read(1).slots
    assert (first.job_id, first.fence, first.phase) == ("job-a", 7, Phase.STARTED)
    assert (first.started_at, first.hard_deadline, first.torn) == (12.5, 99.0, False)
    assert (second.job_id, second.phase, second.hard_deadline) == ("job-b", Phase.FINISHED, None)
    assert table.read(0).slots == table.read(2).slots == ()


def test_a_slot_is_reused_by_the_next_job(table: SharedTable) -> None:
    child = table.child(0)
    child.started(0, "a-long-job-id", 1, 1.0, 2.0)
    child.finished(0)
    child.started(0, "b", 2, 3.0)
    (slot,) = table.read(0).slots
    assert (slot.job_id, slot.fence, slot.hard_deadline) == ("b", 2, None)


def test_overdue_names_started_jobs_past_their_hard_deadline(table: SharedTable) -> None:
    child = table.child(0)
    child.started(0, "late", 1, 0.0, 10.0)
    child.started(1, "unlimited", 2, 0.0)
    assert [slot.fence for slot in table.read(0).overdue(10.0)] == [1]
    assert table.read(0).overdue(9.9) == ()
    child.finished(0)
    assert table.read(0).overdue(10.0) == ()


@pytest.mark.parametrize("position", range(12, 170, 7))
def test_a_torn_slot_counts_as_started(table: SharedTable, position: int) -> None:
    child = table.child(0)
    child.started(0, "x" * 128, 1 << 40, 5.0, 6.0)
    child.finished(0)
    memory = table._memory
    memory[position] ^= 0xFF
    (slot,) = table.read(0).slots
    assert (slot.torn, slot.phase) == (True, Phase.STARTED)


def test_clear_makes_the_row_new_with_a_first_heartbeat(table: SharedTable) -> None:
    table.child(2).started(0, "a", 1, 1.0)
    table.clear(2, 42.0)
    assert table.read(2).slots == ()
    assert table.read(2).last_beat == 42.0


def test_a_killed_childs_last_words_are_there(table: SharedTable) -> None:
    pid = os.fork()
    if pid == 0:
        child = table.child(0)
        child.beat(boot_time())
        child.started(0, "doomed", 3, boot_time(), None)
        os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    state = table.read(0)
    assert [slot.job_id for slot in state.started] == ["doomed"]
    assert 0 <= boot_time() - state.last_beat < 60


def test_a_second_mapping_of_the_descriptor_sees_the_same(table: SharedTable) -> None:
    other = SharedTable(3, 2, fd=os.dup(table.fd))
    table.child(0).started(1, "a", 1, 1.0)
    assert other.read(0) == table.read(0)
    other.close()


def test_rows_that_are_not_there_are_refused(table: SharedTable) -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError):
            table.child(index)
