"""What a caller holds after storing a flow: the way back to it, and to what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from taskharbor import apps
from taskharbor.flow.inputs import pages
from taskharbor.flow.plan import FlowState
from taskharbor.flow.reading import no_flow, nodes_of
from taskharbor.result import AsyncResult
from taskharbor.states import State

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.drivers.base import CancelVerdict
    from taskharbor.drivers.flows import FlowDriver, FlowInfo, FlowNode, Input
    from taskharbor.flow.drawing import Drawing

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class FlowProgress:
    """``done`` of ``total`` jobs have ended; ``by_state``: how many, in each terminal state."""

    done: int
    total: int
    by_state: dict[State, int]

    @property
    def fraction(self) -> float:
        return self.done / self.total if self.total else 1.0


class FlowResult(Generic[R]):
    """A flow, now or later. ``get()`` gives what its last job returns: of a flow that ends in a
    group, the list of what its members return.

    Equal to every other one of the same flow and app. Pickles like an :class:`AsyncResult`.
    ``created`` False: there was a flow with this idempotency key before, this one, and nothing was
    stored; ``same_request`` then tells a replay from another request under the same key.
    """

    __slots__ = ("_result_id", "app", "created", "id", "same_request")

    def __init__(
        self,
        flow_id: str,
        app: TaskHarbor,
        created: bool = True,
        same_request: bool = True,
        result_id: str | None = None,
    ) -> None:
        self.id = flow_id
        self.app = app
        self.created = created
        self.same_request = same_request
        self._result_id = result_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FlowResult):
            return NotImplemented
        return self.id == other.id and self.app.name == other.app.name

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self.id, self.app.name, self.created, self.same_request, self._result_id)
        return _unpickle, (type(self), *given)

    @property
    def _driver(self) -> FlowDriver:
        from taskharbor.flow.storing import flows_of

        return flows_of(self.app)

    # --- the value ----------------------------------------------------------------------------

    @property
    def result(self) -> AsyncResult[R]:
        """The job whose result is the flow's. Raises JobNotFound."""
        if self._result_id is None:
            self._result_id = self.info().result
        return AsyncResult(self._result_id, self.app)

    @property
    def results(self) -> list[AsyncResult[Any]]:
        """The results that the flow's value is made of: those of the members where it ends in a
        group, else that of the one job. Raises JobNotFound."""
        members = self._members()
        if members is None:
            return [self.result]
        return [AsyncResult(given.job_id, self.app) for given in members]

    def _members(self) -> Iterator[Input] | None:
        """How the members stand where the flow ends in a group. A group without any may wait for
        other jobs: these are none of it. Raises JobNotFound."""
        from taskharbor.flow.tasks import JOIN
        from taskharbor.info import describe

        job = self._driver.get(self.result.id)
        if job is None:
            raise no_flow(self.id)
        if job.task != JOIN:
            return None
        size, _ = describe(job).args or (0, [])
        return islice(pages(self._driver, job.id), size)

    def get(self, timeout: float | None = None) -> R:
        """What the flow comes to; waits for it, at most ``timeout`` seconds (None: as it takes).

        Raises TaskFailed with the ``job_id`` and error of the job that failed, JobCancelled,
        ResultTimeout, ResultNotStored, and JobNotFound when the flow is gone.
        """
        return self.result.get(timeout)

    async def aget(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - get()'s name
        """``get()`` for async code."""
        if self._result_id is None:
            await self.app.bridge.call(lambda: self.result)
        return await self.result.aget(timeout)

    def wait(self, timeout: float | None = None) -> FlowState:
        """Wait until the job that ``get()`` asks is over; the flow's state. Raises ResultTimeout
        and JobNotFound."""
        self.result.wait(timeout)
        return self.state

    # --- how the flow stands --------------------------------------------------------------------

    def info(self) -> FlowInfo:
        """The flow's head, as the store has it. Raises JobNotFound."""
        info = self._driver.flow(self.id)
        if info is None:
            raise no_flow(self.id)
        return info

    @property
    def state(self) -> FlowState:
        """Raises JobNotFound."""
        return self.info().state

    def ready(self) -> bool:
        """Whether all of its jobs are over. Raises JobNotFound."""
        return self.info().finished_at is not None

    def successful(self) -> bool:
        """Whether it is over, and succeeded. Raises JobNotFound."""
        return self.state is FlowState.SUCCEEDED

    def failed(self) -> bool:
        """Whether a job is dead without being allowed to, and nothing was done about it yet; jobs
        that don't need that one may still run. Raises JobNotFound."""
        return self.state is FlowState.FAILED

    def progress(self) -> FlowProgress:
        """Raises JobNotFound."""
        info = self.info()
        done = {state: count for state, count in info.finished.items() if count}
        return FlowProgress(sum(done.values()), info.size, done)

    def nodes(self) -> Iterator[FlowNode]:
        """All jobs of the flow in order, read page by page."""
        return nodes_of(self._driver, self.id)

    @property
    def children(self) -> list[AsyncResult[Any]]:
        """The results of all jobs of the flow, in order."""
        return [AsyncResult(node.id, self.app) for node in self.nodes()]

    def graph(self) -> Drawing:
        """The whole flow with the state of each job, to be drawn. Raises JobNotFound."""
        from taskharbor.flow.drawing import read_drawing

        return read_drawing(self._driver, self.id)

    # --- steering it ----------------------------------------------------------------------------

    def cancel(self) -> CancelVerdict:
        """Ask that nothing of the flow runs any more; running jobs are told. Raises JobNotFound."""
        from taskharbor.drivers.base import CancelVerdict

        verdict = self._driver.cancel_flow(self.id)
        if verdict is CancelVerdict.NOT_FOUND:
            raise no_flow(self.id)
        return verdict

    def revoke(self) -> CancelVerdict:
        """``cancel()`` by the name that Celery gave it."""
        return self.cancel()

    def retry_failed(self) -> int:
        """Put the jobs that failed or were cancelled back in line, with all their attempts: what
        waits for them comes back too, and so does what a cancel of the flow had skipped. Where a
        job failed with a flow that it had started, that flow is retried. How many. Raises
        JobNotFound."""
        from taskharbor.flow.retrying import retry_failed

        self.info()
        return retry_failed(self._driver, self.id)

    def forget(self) -> bool:
        """Delete the flow with its jobs and results. False: it is not over and stays, or it is gone
        already."""
        from taskharbor.drivers.base import DeleteVerdict

        return self._driver.delete_flow(self.id) is DeleteVerdict.DELETED


class GroupResult(FlowResult[list[R]], Generic[R]):
    """The result of a flow that ends in a group: also that of each member."""

    __slots__ = ()

    if TYPE_CHECKING:  # the same, known to be the members'

        @property
        def results(self) -> list[AsyncResult[R]]: ...

    def __iter__(self) -> Iterator[AsyncResult[R]]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> AsyncResult[R]:
        return self.results[index]

    def __bool__(self) -> bool:
        return True  # an empty group is a result too

    def join(self, timeout: float | None = None, propagate: bool = True) -> list[R]:
        """``get()`` by Celery's name. Without ``propagate``: wait for every member, and have the
        exceptions of those that failed in the list."""
        if propagate:
            return self.get(timeout)
        import time

        ends = None if timeout is None else time.monotonic() + timeout
        values: list[Any] = []
        for result in self.results:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            result.wait(left)
            values.append(result.get(0) if result.successful() else result.exception())
        return values

    def completed_count(self) -> int:
        """How many members have succeeded."""
        members = self._members() or ()
        return sum(given.outcome.state is State.SUCCEEDED for given in members)


def _unpickle(
    kind: type[FlowResult[Any]],
    flow_id: str,
    app_name: str,
    created: bool,
    same_request: bool,
    result_id: str | None,
) -> FlowResult[Any]:
    return kind(flow_id, apps.find(app_name), created, same_request, result_id)
