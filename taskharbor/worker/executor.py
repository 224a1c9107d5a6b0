"""One attempt, from a reservation to a settlement.

``run`` reads the job, finds its task, calls it, and lets ``decide`` say what becomes of the job. It
knows no store and keeps no time: whoever runs the attempt gives it a ``Control``.

Promises. Whatever the job's bytes and the task's code do, a settlement comes back: every exception
of user code is an outcome, also MemoryError, RecursionError, KeyboardInterrupt and SystemExit (a
task that calls ``sys.exit()`` has failed; it does not stop the worker). The soft limit reaches user
code only: ``control.interrupt`` is None again before our own code goes on; one that passes while
the payload is decoded strikes at once when that is done. Each attempt has a context of its own, so
that context variables do not leak into the next job. In a process that the task's code has forked
nothing comes back: when that code ends there, so does the process.

Does not work: a sync task in a thread, and a coroutine that blocks its loop, are not interrupted;
they see their limit when they look (``current_job().check()``), or the hard limit ends the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from os import getpid
from random import Random
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from taskharbor import codec
from taskharbor.context import Control, JobContext, enter
from taskharbor.control import SoftTimeLimit
from taskharbor.decision import Failed, HandedOver, Succeeded, Undecodable, decide
from taskharbor.errors import DecodeError, EncodeError, JobError, StoreError
from taskharbor.lease import Reservation
from taskharbor.message import DEFAULT_POLICY, Policy, read_body
from taskharbor.settlement import Settlement
from taskharbor.signals import AttemptStarted
from taskharbor.transactional import require
from taskharbor.worker.event_loops import EventLoops
from taskharbor.worker.flowing import glue, wired_arguments
from taskharbor.worker.ordinary import end_copy
from taskharbor.worker.outcomes import (
    Ended,
    Replaced,
    failure,
    not_committed,
    not_known,
    raised,
    replaced_in_transaction,
    returned,
    unread,
)

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.task import Task

T = TypeVar("T")


class Work(NamedTuple):
    """A job that was read and can be run. ``timeout``: seconds that are left to its soft limit."""

    task: Task[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    job: JobContext
    timeout: float | None


class Executor:
    """Runs the attempts of one process. ``threads``: how many sync tasks ``run_async`` may run at
    once."""

    def __init__(self, app: TaskHarbor, *, rng: Random | None = None, threads: int = 32) -> None:
        self._app = app
        self._rng = rng or Random()
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._loops = EventLoops()

    def run(self, job: Reservation, control: Control) -> Settlement:
        """Run the attempt in this thread; a coroutine in an event loop that the thread keeps."""
        policy, work = self._open(job, control)
        pid = getpid()
        ended: Ended | Replaced
        if isinstance(work, Ended):
            ended = work
        elif work.task.is_async:
            ended = self._run_coroutine(work)
        elif work.task.transactional:
            ended = copy_context().run(self._transact, job, work, control)
        else:
            ended = copy_context().run(self._call, work, control)
        if getpid() != pid:
            end_copy(ended.exception)
        if isinstance(ended, Replaced):
            ended = copy_context().run(self._hand_over, job, ended)
        return self._settle(job, policy, ended)

    async def run_async(self, job: Reservation, control: Control) -> Settlement:
        """Run the attempt in this event loop; a sync task in a thread.

        Call it in an asyncio task of its own for each job. Cancelling that cancels the task's code,
        raises CancelledError and settles nothing; so does code that cancels the asyncio task which
        it finds itself in (see ``settle_error``).
        """
        if job.flow is None and job.awaits is None:
            policy, work = self._open(job, control)
        else:  # that may ask the store for what other jobs have come to
            policy, work = await self._in_thread(partial(self._open, job, control))
        pid = getpid()
        ended: Ended | Replaced
        if isinstance(work, Ended):
            ended = work
        elif work.task.is_async:
            ended = await self._await(work)
        elif work.task.transactional:
            call = partial(copy_context().run, self._transact, job, work, control)
            ended = await self._in_thread(call)
        else:
            call = partial(copy_context().run, self._call_in_thread, work, control)
            ended = await self._in_thread(call)
        if getpid() != pid:
            end_copy(ended.exception)
        if isinstance(ended, Replaced):
            ended = await self._in_thread(partial(copy_context().run, self._hand_over, job, ended))
        return self._settle(job, policy, ended)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        self._pool = self._pool or ThreadPoolExecutor(self._threads, "taskharbor-task")
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def settle_error(self, job: Reservation, error: BaseException) -> Settlement:
        """What becomes of a job whose attempt ended without a settlement, by ``error``."""
        try:
            policy = read_body(job.body).policy
        except DecodeError:
            policy = DEFAULT_POLICY
        return self._settle(job, policy, Ended(Failed(failure(error)), error))

    def close(self) -> None:
        """End the event loops and threads. What still runs in a thread is left to the process."""
        self._loops.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    # --- reading the job ------------------------------------------------------------------------

    def _open(self, job: Reservation, control: Control) -> tuple[Policy, Work | Ended]:
        policy = DEFAULT_POLICY
        try:
            call = read_body(job.body)
            policy = call.policy
            # From here on a crash is this job's: it must be known as started before its payload
            # is touched.
            control.begin(call.timeout)
            task = self._app.tasks.get(job.task) or glue(self._app, job.task)
            if task is None:
                return policy, not_known(self._app.name, job.task)
            if job.awaits is not None:
                return policy, self._resume(job, task)
            if policy.max_attempts == 1 or task.options.settle == "each":
                control.urgent = True
            timeout = call.timeout
            if call.wiring is None:
                args, kwargs = codec.decode_call(call.payload, rebuild=task.rebuild)
            else:
                began = monotonic()
                args, kwargs = wired_arguments(self._app, job, call, call.wiring, task)
                if timeout is not None:  # the store may have taken its time
                    timeout -= monotonic() - began
        except Exception as error:
            ended = unread(error, self._rng)
            if ended is None:
                raise  # a bug of ours: what user code raises there is a DecodeError,
            return policy, ended
        except BaseException as error:  # noqa: BLE001 - or a constructor of its classes that exits
            return policy, Ended(Undecodable(failure(error)), error)
        context = JobContext(job, call, control, task.options.max_result_bytes)
        if self._app.signals.started.handlers:
            self._app.signals.started.send(
                AttemptStarted(job.id, job.task, job.queue, job.attempt, job.fence)
            )
        return policy, Work(task, args, kwargs, context, timeout)

    def _resume(self, job: Reservation, task: Task[..., Any]) -> Ended:
        """What the flow that the job gave its work to has come to, is what the job comes to."""
        from taskharbor.flow.awaited import outcome_of_awaited

        try:
            return Ended(outcome_of_awaited(self._app, job, task))
        except (EncodeError, JobError) as error:
            return Ended(Failed(failure(error), retryable=False), error)

    # --- running it -----------------------------------------------------------------------------

    def _call(self, work: Work, control: Control) -> Ended | Replaced:
        """Call a sync task. Runs in a context of its own."""
        task = work.task
        enter(work.job)
        try:
            try:
                control.interrupt = _strike
                if control.interrupted:
                    _strike()
                if self._app.stack.attempts:
                    call = partial(task.invoke, *work.args, **work.kwargs)
                    value = self._app.stack.attempt(task, work.job, call)
                else:
                    value = task.invoke(*work.args, **work.kwargs)
            finally:
                control.interrupt = None
        except BaseException as error:  # noqa: BLE001 - every end of user code is an outcome
            # The limit may have struck in the 'finally', before its only line.
            control.interrupt = None
            return raised(work.task, work.job, error)
        return returned(task, work.job, value)

    def _call_in_thread(self, work: Work, control: Control) -> Ended | Replaced:
        """In a process forked in here no other thread lives: it has to end where it is."""
        pid = getpid()
        ended = self._call(work, control)
        if getpid() != pid:
            end_copy(ended.exception)
        return ended

    def _transact(self, job: Reservation, work: Work, control: Control) -> Ended | Replaced:
        """Call a sync task in a transaction of the store, which settles the job as well if the
        task succeeds. Runs in a context of its own."""
        begun = False
        try:
            driver = require(self._app.driver, work.task.name)
            with driver.begin(job) as transaction:
                begun = True
                work.job.transaction = transaction
                args = [transaction.connection, *work.args]
                ended = self._call_in_thread(work._replace(args=args), control)
                if isinstance(ended, Replaced):
                    ended = replaced_in_transaction(work.task)
                if isinstance(ended.outcome, Succeeded):
                    transaction.succeed(ended.outcome.result)
                else:
                    transaction.verify()
            control.settled = isinstance(ended.outcome, Succeeded)
        except Exception as error:  # noqa: BLE001 - a constraint that the commit checked, for one
            return not_committed(work.task, work.job, error, begun=begun, rng=self._rng)
        return ended

    async def _await(self, work: Work) -> Ended | Replaced:
        """Await an async task. Runs in a context of its own."""
        task = work.task
        enter(work.job)
        try:
            call = partial(task.invoke, *work.args, **work.kwargs)
            if self._app.stack.attempts:
                call = partial(self._app.stack.attempt_async, task, work.job, call)
            if work.timeout is not None and work.timeout <= 0:
                _strike()
            value = await _within(work.timeout, call())
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise  # it is us who are cancelled
            return raised(work.task, work.job, error)
        except BaseException as error:  # noqa: BLE001 - every end of user code is an outcome
            return raised(work.task, work.job, error)
        return returned(task, work.job, value)

    def _run_coroutine(self, work: Work) -> Ended | Replaced:
        try:
            return self._loops.run(self._await(work))
        except BaseException as error:  # noqa: BLE001 - every end of user code is an outcome
            return raised(work.task, work.job, error)

    # --- what becomes of it -----------------------------------------------------------------------

    def _hand_over(self, job: Reservation, replaced: Replaced) -> Ended:
        """Store the flow that the job's task gave its work to. Runs in a context of its own:
        middleware that sees the flow's calls may ask for the job."""
        from taskharbor.flow.storing import store_awaited

        enter(replaced.job)
        try:
            return Ended(HandedOver(store_awaited(self._app, replaced.canvas, job)))
        except Exception as error:  # noqa: BLE001 - encoding reads attributes of the user's classes
            return Ended(Failed(failure(error), retryable=isinstance(error, StoreError)), error)

    def _settle(self, job: Reservation, policy: Policy, ended: Ended) -> Settlement:
        # Of the store's clock decide() only needs a moment of this lease.
        now = job.reserved_at
        try:
            settlement = decide(job, policy, ended.outcome, now=now, rng=self._rng)
        except DecodeError as error:  # the policy in the job's body
            corrupt = Undecodable(failure(error))
            settlement = decide(job, DEFAULT_POLICY, corrupt, now=now, rng=self._rng)
        self._app.signals.attempt_ended(job, settlement, ended.exception)
        return settlement


def _strike() -> NoReturn:
    raise SoftTimeLimit


async def _within(seconds: float | None, awaitable: Awaitable[T]) -> T:
    """Raises SoftTimeLimit, caused by the CancelledError that shows where the code was."""
    if seconds is None:
        return await awaitable
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await awaitable
    except TimeoutError as error:
        if limit.expired():
            raise SoftTimeLimit from error.__cause__
        raise
