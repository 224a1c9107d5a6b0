"""What a job comes to that gave its work to a flow, once that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskharbor import codec
from taskharbor.decision import CancelledItself, Failed, Outcome, Succeeded
from taskharbor.errors import JobNotFound, PayloadTooLarge
from taskharbor.flow.gathered import Gathered
from taskharbor.flow.inputs import as_flows, find_cause, read_list
from taskharbor.states import State

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.lease import Reservation
    from taskharbor.task import Task


def outcome_of_awaited(app: TaskHarbor, job: Reservation, task: Task[..., Any]) -> Outcome:
    """The flow's result, or its failure: the job has had its attempts, the flow's jobs theirs.

    A list is copied here, within the size that the task's result may have: the flow may be gone
    before whoever takes the job's result. Raises JobNotFound when it is gone already, EncodeError,
    DecodeError, and what the store raises.
    """
    driver = as_flows(app.driver)
    assert job.awaits is not None
    info = driver.flow(job.awaits)
    outcome = None if info is None else driver.results((info.result,))[0]
    if info is None or outcome is None:
        raise JobNotFound(
            f"the flow {job.awaits}, which job {job.id} gave its work to, is gone",
            job_id=job.awaits,
        )
    job_id = info.result
    if outcome.state is State.SUCCEEDED:
        return Succeeded(_copied(app, job_id, outcome.result, task))
    cause = find_cause(driver, job_id, outcome)
    if cause is not None:
        job_id, outcome = cause
    if outcome.state is State.DEAD:
        return Failed(outcome.error, outcome.reason, retryable=False)
    cancelled = codec.Failure("JobCancelled", "taskharbor.errors", _why(job.awaits, job_id))
    return CancelledItself(cancelled.encode())


def _copied(
    app: TaskHarbor, job_id: str, result: bytes | None, task: Task[..., Any]
) -> bytes | None:
    if result is None or not task.options.store_result:
        return None
    gathered = Gathered.decode(result)
    if gathered is None:
        most = task.options.max_result_bytes
        if len(result) > most:
            raise PayloadTooLarge(
                f"the result of the flow takes {len(result):,} bytes, over the limit of {most:,}; "
                "return a reference, or raise max_result_bytes"
            )
        return result
    values = read_list(as_flows(app.driver), job_id, gathered)
    return codec.encode(values, limit=task.options.max_result_bytes, what="result")


def _why(flow_id: str, job_id: str) -> str:
    return f"the flow {flow_id}, which had the job's work, was cancelled (job {job_id})"
