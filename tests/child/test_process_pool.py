"""One job at a time in the main thread of a real child process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass

import pytest

from taskharbor.app import TaskHarbor
from taskharbor.codec import Failure, decode
from taskharbor.context import current_job
from taskharbor.control import SoftTimeLimit
from taskharbor.drivers.base import JobFilter
from taskharbor.states import Reason, State
from taskharbor.worker.config import ExitCode
from taskharbor.worker.prefetch import Prefetch
from taskharbor.worker.table import Phase
from tests.child.harness import Yard
from tests.waiting import best_of, wait_until


def test_it_drains_a_queue_and_stops_clean(yard: Yard) -> None:
    @yard.app.task
    def double(x: int) -> int:
        return 2 * x

    results = yard.app.enqueue_many([double.s(number) for number in range(500)])
    child = yard.child()
    yard.wait_for_count(State.SUCCEEDED, 500)
    assert child.stop() == ExitCode.OK
    assert [decode(yard.job(result.id).result or b"") for result in results] == [
        2 * number for number in range(500)
    ]


def test_an_idle_child_starts_a_job_soon_after_a_wake_up(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that no poll helps.
    monkeypatch.setattr("taskharbor.worker.planner.POLL_SECONDS", 600.0)

    @yard.app.task
    def stamp() -> float:
        return time.monotonic()

    first = stamp.delay()
    child = yard.child()
    yard.wait_for_state(first.id, State.SUCCEEDED)  # the child has come up

    def delay() -> float:
        enqueued_at = time.monotonic()
        result = stamp.delay()
        child.wake.add()
        yard.wait_for_state(result.id, State.SUCCEEDED)
        started_at: float = decode(yard.job(result.id).result or b"")
        return started_at - enqueued_at

    assert best_of(delay, below=0.1) < 0.1


def test_without_any_wake_up_a_job_waits_for_a_poll(yard: Yard) -> None:
    @yard.app.task
    def noop() -> None: ...

    yard.child()
    for _ in range(2):
        result = noop.delay()
        yard.wait_for_state(result.id, State.SUCCEEDED)


def test_an_idle_child_takes_next_to_no_cpu(yard: Yard) -> None:
    @yard.app.task
    def cpu() -> float:
        return time.process_time()

    yard.child()

    def read() -> tuple[float, float]:
        result = cpu.delay()
        yard.wait_for_state(result.id, State.SUCCEEDED)
        return decode(yard.job(result.id).result or b""), time.monotonic()

    def share() -> float:
        """Of a core."""
        (cpu_before, before), deadline = read(), time.monotonic() + 3.0
        wait_until(lambda: time.monotonic() >= deadline, what="three idle seconds")
        cpu_after, after = read()
        return (cpu_after - cpu_before) / (after - before)

    assert best_of(share, below=0.02, tries=5) < 0.02


def test_a_job_counts_as_started_in_the_table_before_its_payload_is_touched(yard: Yard) -> None:
    ledger = yard.ledger

    @yard.app.task(timeout=60)
    def hold() -> None:
        ledger.write("in")
        time.sleep(60)

    result = hold.delay()
    child = yard.child()
    ledger.wait_for("in")
    (slot,) = child.row.slots
    assert (slot.job_id, slot.phase) == (result.id, Phase.STARTED)
    assert slot.hard_deadline is not None
    assert slot.hard_deadline - slot.started_at == pytest.approx(65.0)


# --- nothing waits behind a long job ----------------------------------------------------------


def test_a_long_job_holds_up_neither_unstarted_jobs_nor_settlements(yard: Yard) -> None:
    ledger = yard.ledger

    @yard.app.task
    def quick() -> None: ...

    @yard.app.task(timeout=None)
    def long() -> None:
        ledger.write("long")
        time.sleep(30)

    yard.app.enqueue_many([quick.s() for _ in range(400)])
    long.delay()
    yard.app.enqueue_many([quick.s() for _ in range(100)])
    yard.child()
    ledger.wait_for("long")
    yard.wait_for_count(State.SUCCEEDED, 400)
    wait_until(lambda: yard.count(State.READY) == 100, what="the hand-back")
    assert yard.count(State.RUNNING) == 1


# --- limits -----------------------------------------------------------------------------------


def test_the_soft_limit_interrupts_a_task_that_sleeps(yard: Yard) -> None:
    @yard.app.task(timeout=0.2, max_attempts=1)
    def sleeper() -> None:
        time.sleep(30)

    result = sleeper.delay()
    yard.child()
    job = yard.wait_for_state(result.id, State.DEAD)
    assert job.reason is Reason.TIMED_OUT
    assert Failure.decode(job.error or b"").type == "SoftTimeLimit"


def test_the_soft_limit_interrupts_a_task_that_computes(yard: Yard) -> None:
    @yard.app.task(timeout=0.2, max_attempts=1)
    def busy() -> None:
        while True:
            pass

    result = busy.delay()
    yard.child()
    assert yard.wait_for_state(result.id, State.DEAD).reason is Reason.TIMED_OUT


@dataclass
class SlowToRead:
    """Takes longer to come out of its bytes than its task is given."""

    seconds: float

    def __post_init__(self) -> None:
        time.sleep(self.seconds)


def test_the_soft_limit_that_passes_while_arguments_are_decoded_is_kept(yard: Yard) -> None:
    @yard.app.task(timeout=0.2, max_attempts=1)
    def sleeper(slow: SlowToRead) -> None:
        time.sleep(30)

    result = sleeper.delay({"seconds": 0.5})  # type: ignore[arg-type]  # rebuilt in the child
    yard.child()
    job = yard.wait_for_state(result.id, State.DEAD)
    assert Failure.decode(job.error or b"").type == "SoftTimeLimit", "not the hard limit"


def test_a_task_can_clean_up_when_its_limit_strikes(yard: Yard) -> None:
    ledger = yard.ledger

    @yard.app.task(timeout=0.2)
    def careful() -> str:
        try:
            time.sleep(30)
        except SoftTimeLimit:
            ledger.write("cleaned")
        return "partial"

    result = careful.delay()
    yard.child()
    job = yard.wait_for_state(result.id, State.SUCCEEDED)
    assert decode(job.result or b"") == "partial"
    assert ledger.lines() == ["cleaned"]


def test_a_child_ends_itself_when_nobody_enforces_the_hard_limit(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.defaults.HARD_TIMEOUT_AFTER_SECONDS", 0.2)

    @yard.app.task(timeout=0.1)
    def stubborn() -> None:
        while True:
            try:
                time.sleep(30)
            except SoftTimeLimit:
                continue

    stubborn.delay()
    child = yard.child()
    assert child.wait() == ExitCode.HARD_LIMIT
    assert child.row.started, "the supervisor sees what was running"


# --- stopping ---------------------------------------------------------------------------------


def test_a_stop_lets_the_running_job_end_and_hands_back_the_rest(
    yard: Yard, noted_stop: str
) -> None:
    ledger = yard.ledger

    @yard.app.task
    def slow() -> None:
        ledger.write("in")
        ledger.wait_for(noted_stop)
        ledger.write("out")

    yard.app.enqueue_many([slow.s() for _ in range(5)])
    child = yard.child()
    ledger.wait_for("in")
    assert child.stop() == ExitCode.OK
    assert ledger.lines() == ["in", "stop", "out"]
    assert yard.count(State.SUCCEEDED) == 1
    assert yard.count(State.READY) == 4
    page = yard.app.driver.list_jobs(JobFilter())
    assert sorted(job.attempts for job in page.jobs) == [0, 0, 0, 0, 1], "uncharged"


def test_a_stop_is_seen_while_the_main_thread_is_in_a_long_c_call(yard: Yard) -> None:
    ledger = yard.ledger
    let_go = yard.directory / "let go"
    os.mkfifo(let_go)

    @yard.app.task
    def deep() -> None:
        ledger.write("in")
        subprocess.run(["cat", let_go], check=True)

    @yard.app.task
    def quick() -> None: ...

    yard.app.enqueue_many([quick.s() for _ in range(300)])
    deep.delay()
    yard.app.enqueue_many([quick.s() for _ in range(50)])
    child = yard.child()
    ledger.wait_for("in")
    child.send(signal.SIGTERM)
    wait_until(lambda: yard.count(State.RUNNING) == 1, what="the hand-back")
    let_go.write_text("now")
    assert child.wait() == ExitCode.OK


def test_a_second_sigterm_does_not_interrupt(yard: Yard, noted_stop: str) -> None:
    ledger = yard.ledger

    @yard.app.task
    def slow() -> None:
        ledger.write("in")
        wait_until(lambda: ledger.lines().count(noted_stop) == 2, what="two stops")

    result = slow.delay()
    child = yard.child()
    ledger.wait_for("in")
    child.send(signal.SIGTERM)
    ledger.wait_for(noted_stop)
    child.send(signal.SIGTERM)
    assert child.wait() == ExitCode.OK
    assert yard.job(result.id).state is State.SUCCEEDED


def test_sigquit_ends_the_child_at_once_and_leaves_the_job_to_the_supervisor(yard: Yard) -> None:
    ledger = yard.ledger

    @yard.app.task
    def slow() -> None:
        ledger.write("in")
        time.sleep(600)

    result = slow.delay()
    child = yard.child()
    ledger.wait_for("in")
    child.send(signal.SIGQUIT)
    assert child.wait() == ExitCode.FORCED
    assert yard.job(result.id).state is State.RUNNING
    assert [slot.job_id for slot in child.row.started] == [result.id]


def test_a_child_whose_parent_is_not_its_parent_any_more_leaves(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getppid", lambda: 1)
    assert yard.child().wait() == ExitCode.ORPHANED


def test_a_retired_child_leaves_with_a_code_of_its_own(yard: Yard) -> None:
    child = yard.child()
    yard.app.driver.retire(child.holder)
    assert child.wait() == ExitCode.RETIRED


def test_a_child_is_used_up_after_its_number_of_tasks(yard: Yard) -> None:
    @yard.app.task
    def noop() -> None: ...

    yard.app.enqueue_many([noop.s() for _ in range(100)])
    assert yard.child(max_tasks_per_child=30).wait() == ExitCode.RECYCLED
    assert yard.count(State.SUCCEEDED) == 30
    assert yard.count(State.READY) == 70


def test_a_child_that_has_grown_too_big_leaves_between_jobs(yard: Yard) -> None:
    hoard: list[bytes] = []

    @yard.app.task
    def grow() -> None:
        hoard.append(b"x" * 100_000_000)

    yard.app.enqueue_many([grow.s() for _ in range(50)])
    assert yard.child(max_memory_per_child=300_000_000).wait() == ExitCode.RECYCLED
    assert 1 <= yard.count(State.SUCCEEDED) <= 5
    assert yard.count(State.RUNNING) == 0


# --- leases -----------------------------------------------------------------------------------


def test_the_lease_of_a_long_job_is_extended(yard: Yard) -> None:
    ledger = yard.ledger

    @yard.app.task
    def long() -> None:
        ledger.write("in")
        ledger.wait_for("go")

    result = long.delay()
    yard.child(heartbeat_seconds=0.2)
    ledger.wait_for("in")
    first = yard.lease_end(result.id)
    wait_until(lambda: yard.lease_end(result.id) > first + 1.0, what="more than one extension")
    ledger.write("go")
    job = yard.wait_for_state(result.id, State.SUCCEEDED)
    assert job.attempts == 1


def test_a_child_suspended_past_its_leases_starts_none_of_its_jobs(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = yard.ledger
    # However long the machine makes short jobs look.
    monkeypatch.setattr(Prefetch, "limit", lambda self, room: 21)

    @yard.app.task(timeout=None)
    def hold() -> None:
        ledger.write("in")
        # Every job after the first: the child stands still before the heartbeat thread gives
        # the others back.
        os.kill(os.getpid(), signal.SIGSTOP)
        ledger.write("out")

    @yard.app.task
    def never() -> None:
        ledger.write("never")

    hold.delay()
    yard.app.enqueue_many([never.s() for _ in range(20)])
    child = yard.child(lease_seconds=1.0)
    ledger.wait_for("in")
    assert yard.count(State.RUNNING) == 21, "all are prefetched"
    driver = yard.app.driver
    wait_until(lambda: len(driver.expired(1000)) == yard.count(State.RUNNING), what="expiry")
    yard.app.driver.pause("default")
    child.send(signal.SIGCONT)
    ledger.wait_for("out")
    assert child.stop() == ExitCode.OK
    assert "never" not in ledger.lines()
    # What never started is back in line at once, however late, and costs nothing; what ran is
    # left to the reaper.
    untouched = driver.list_jobs(JobFilter(task=never.name)).jobs
    assert {(job.state, job.attempts, job.losses) for job in untouched} == {(State.READY, 0, 0)}
    (held,) = driver.list_jobs(JobFilter(task=hold.name)).jobs
    assert held.state is State.RUNNING


def test_a_zombies_settlement_changes_nothing_and_is_logged(yard: Yard) -> None:
    ledger = yard.ledger

    @yard.app.task
    def hold() -> None:
        ledger.write("in")
        os.kill(os.getpid(), signal.SIGSTOP)

    result = hold.delay()
    child = yard.child(lease_seconds=0.5)
    ledger.wait_for("in")
    driver = yard.app.driver
    wait_until(lambda: driver.expired(10), what="expiry")
    driver.pause("default")
    fence = yard.job(result.id).fence
    child.send(signal.SIGCONT)
    wait_until(lambda: "settlement refused" in child.log, what="the log line")
    assert result.id in child.log
    assert f'"fence": {fence}' in child.log
    assert '"verdict": "expired"' in child.log
    assert yard.job(result.id).state is State.RUNNING


def test_a_running_job_learns_that_it_was_cancelled(yard: Yard) -> None:
    ledger = yard.ledger

    @yard.app.task
    def patient() -> None:
        ledger.write("in")
        while True:
            current_job().check()
            time.sleep(0.01)

    result = patient.delay()
    yard.child(heartbeat_seconds=0.2)
    ledger.wait_for("in")
    yard.app.driver.cancel([result.id])
    cancelled = yard.wait_for_state(result.id, State.CANCELLED)
    assert cancelled.reason is Reason.OPERATOR


def test_save_and_progress_are_stored_while_the_job_runs(yard: Yard) -> None:
    ledger = yard.ledger

    @yard.app.task
    def steps() -> None:
        job = current_job()
        job.save({"step": 1})
        job.progress(0.5, "half")
        ledger.write("saved")
        time.sleep(30)

    result = steps.delay()
    yard.child()
    ledger.wait_for("saved")
    job = yard.job(result.id)
    assert decode(job.saved or b"") == {"step": 1}
    assert decode(job.progress or b"") == [0.5, "half"]


# --- what a task does to its process ----------------------------------------------------------


def test_a_process_that_a_task_forks_can_be_terminated_without_stopping_the_child(
    yard: Yard,
) -> None:
    @yard.app.task
    def forks() -> int:
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
            os._exit(0)
        os.kill(pid, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    first, second = forks.delay(), forks.delay()
    yard.child()
    for result in (first, second):
        job = yard.wait_for_state(result.id, State.SUCCEEDED)
        assert decode(job.result or b"") == -signal.SIGTERM


@pytest.mark.parametrize("ending", ["return", "raise", "exit"])
def test_a_process_that_a_task_forks_ends_with_the_task_instead_of_serving_too(
    yard: Yard, ending: str
) -> None:
    @yard.app.task
    def forks() -> int:
        pid = os.fork()
        if pid:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if ending == "raise":
            raise ValueError("in the copy")
        if ending == "exit":
            raise SystemExit(7)
        return -1

    @yard.app.task
    def noted(number: int) -> None:
        yard.ledger.write(f"{number}")

    first = forks.delay()
    yard.app.enqueue_many([noted.s(number) for number in range(20)])
    yard.child()
    yard.wait_for_count(State.SUCCEEDED, 21)
    code = {"return": 0, "raise": 1, "exit": 7}[ending]
    assert decode(yard.job(first.id).result or b"") == code
    assert sorted(yard.ledger.lines(), key=int) == [str(number) for number in range(20)]


def test_a_task_that_exits_is_a_failed_task_not_a_stopped_child(yard: Yard) -> None:
    @yard.app.task(max_attempts=1)
    def leaves() -> None:
        raise SystemExit(3)

    @yard.app.task
    def after() -> None: ...

    first, second = leaves.delay(), after.delay()
    yard.child()
    yard.wait_for_state(second.id, State.SUCCEEDED)
    assert yard.job(first.id).state is State.DEAD


def test_urgent_jobs_are_settled_one_by_one(yard: Yard) -> None:
    ledger = yard.ledger
    url = yard.app.url

    @yard.app.task(settle="each")
    def each() -> None:
        # What the store has, seen past this process' own connection.
        other = TaskHarbor(url)
        try:
            counts = other.driver.queues()[0].counts
        finally:
            other.close()
        ledger.write(f"{counts[State.SUCCEEDED]} settled")

    yard.app.enqueue_many([each.s() for _ in range(30)])
    yard.child()
    yard.wait_for_count(State.SUCCEEDED, 30)
    assert ledger.lines() == [f"{number} settled" for number in range(30)]
