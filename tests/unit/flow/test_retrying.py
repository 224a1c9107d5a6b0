"""What ``retry_failed()`` brings back."""

from collections.abc import Iterator
from typing import Any

import pytest

from taskharbor import FlowResult, TaskHarbor, chain, group, testing
from taskharbor.flow.plan import FlowState
from taskharbor.flow.retrying import retry_failed
from taskharbor.flow.storing import flows_of
from taskharbor.states import State

app = TaskHarbor("memory://", name="retrying", max_attempts=1)
broken: list[str] = []
cancelled: list[FlowResult[Any]] = []


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def cancel_flow(x: int) -> int:
    """A job that the cancel of its flow comes too late for."""
    if cancelled:
        cancelled.pop().cancel()
    return x


@app.task
def deeper(levels: int) -> Any:
    if levels:
        return deeper.s(levels - 1)
    if broken:
        raise ValueError(broken.pop())
    return 7


@pytest.fixture(autouse=True)
def _store() -> Iterator[None]:
    with testing.memory(app):
        yield


def test_jobs_that_were_not_in_line_when_their_flow_was_cancelled_come_back() -> None:
    """Of a large flow, only the first page is in line at once."""
    size = 1200
    result = (group(add.s(number) for number in range(size)) | total.s()).delay()
    result.cancel()
    testing.drain(app)
    assert result.progress().by_state == {State.CANCELLED: size + 1}
    assert result.retry_failed() == size
    testing.drain(app)
    assert result.get(timeout=0) == sum(range(size))
    assert result.state is FlowState.SUCCEEDED


def test_what_comes_after_a_job_that_succeeded_too_late_comes_back() -> None:
    result = chain(cancel_flow.s(1), add.s(1), add.s(1)).delay()
    cancelled.append(result)
    testing.drain(app)
    assert result.state is FlowState.CANCELLED
    assert result.retry_failed() == 1
    testing.drain(app)
    assert result.get(timeout=0) == 3
    assert result.successful()
    assert result.retry_failed() == 0


def test_the_same_beside_jobs_that_are_put_back() -> None:
    """Requeueing those alone ends the cancel, and would leave the other where it is."""
    result = group(chain(cancel_flow.s(1), add.s(1)), add.s(5)).delay()
    cancelled.append(result)
    testing.drain(app)
    assert result.progress().by_state[State.SUCCEEDED] == 1
    assert result.retry_failed() == 2
    testing.drain(app)
    assert result.get(timeout=0) == [2, 5]


def test_what_still_waits_is_not_put_in_line() -> None:
    """A member that is put back runs before what takes its failure as a value."""
    members = group(add.s(1), add.s(2)).allow_failure()
    result = (members | total.s()).delay()
    result.cancel()
    testing.drain(app)
    assert result.retry_failed() == 2
    assert [job.state for job in result.children] == [State.READY, State.READY, State.BLOCKED]
    testing.drain(app)
    assert result.get(timeout=0) == 3


def test_work_that_was_handed_over_more_often_than_python_can_recurse_is_retried() -> None:
    levels = 1100
    broken.append("at the bottom")
    result = chain(deeper.s(levels), add.s(1)).delay()
    testing.drain(app)
    assert result.failed()
    assert result.retry_failed() == levels + 1
    testing.drain(app)
    assert result.get(timeout=0) == 8


def test_nothing_is_retried_in_a_flow_that_is_not_there() -> None:
    assert retry_failed(flows_of(app), "nowhere") == 0
