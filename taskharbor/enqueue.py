"""From calls to stored jobs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from taskharbor import defaults
from taskharbor.canvas import NO_TIES, Canvas
from taskharbor.errors import InvalidCall, StoreUnavailable
from taskharbor.message import Message
from taskharbor.middleware import EnqueueRequest
from taskharbor.result import AsyncResult
from taskharbor.signals import JobEnqueued
from taskharbor.signature import Signature

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.drivers.base import Enqueued
    from taskharbor.task import Task

R = TypeVar("R")
Calls = Sequence[Signature[Any]]


def enqueue_one(
    task: Task[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncResult[R]:
    """Store one call. The way of ``delay()``, so it is a short one."""
    app = task.app
    if app.stack.enqueues:
        return _through_middleware(app, (Signature(task, args, kwargs),), task.connection)[0]
    message = task.message(args, kwargs)
    return _result(app, message, _send(app, (message,), task.connection)[0])


def enqueue(app: TaskHarbor, calls: Calls, connection: Any) -> list[AsyncResult[Any]]:
    """Store one batch; the results in the order of the calls. All of it or nothing is stored."""
    for call in calls:
        if type(call) is not Signature or call.ties is not NO_TIES:
            raise _no_plain_call(call)
    if app.stack.enqueues:
        return _through_middleware(app, calls, connection)
    return _store(app, calls, connection)


def batches(calls: Iterable[Signature[Any]]) -> Iterator[list[Signature[Any]]]:
    """``calls`` in lists of ``defaults.BATCH``, one of which is held at a time."""
    rest = iter(calls)
    while batch := list(islice(rest, defaults.BATCH)):
        yield batch


def _no_plain_call(call: object) -> InvalidCall:
    if isinstance(call, Canvas):
        return InvalidCall(
            f"{call!r} is a flow (a call with callbacks is one too), and can't be one of many in a "
            "batch; send it by itself, or make a group of all"
        )
    return InvalidCall(f"{call!r} is no call written down; write it as task.s(...)")


def _through_middleware(app: TaskHarbor, calls: Calls, connection: Any) -> list[AsyncResult[Any]]:
    return app.stack.enqueue(
        [request_of(call) for call in calls],
        lambda changed: _store(app, [call_of(request) for request in changed], connection),
    )


def request_of(call: Signature[Any]) -> EnqueueRequest:
    """``call`` as middleware sees it."""
    headers = dict(call.task.call_options.get("headers") or {})
    return EnqueueRequest(call.task, call.args, call.kwargs, headers)


def call_of(request: EnqueueRequest, *, immutable: bool = False) -> Signature[Any]:
    """What middleware has made of a call, without its callbacks."""
    task = request.task
    if request.headers != (task.call_options.get("headers") or {}):
        task = task.using(headers=request.headers)
    return Signature(task, request.args, request.kwargs, immutable)


def _store(app: TaskHarbor, calls: Calls, connection: Any) -> list[AsyncResult[Any]]:
    messages = [call.task.message(call.args, call.kwargs) for call in calls]
    answers = _send(app, messages, connection)
    return [
        _result(app, message, answer) for message, answer in zip(messages, answers, strict=True)
    ]


def _result(app: TaskHarbor, message: Message, answer: Enqueued) -> AsyncResult[Any]:
    # An id made here was created here, also when a repeat of the request found it there.
    created = answer.created or not message.digest
    if app.signals.enqueued.handlers:
        app.signals.enqueued.send(JobEnqueued(answer.id, message.task, message.queue, created))
    return AsyncResult(answer.id, app, created, answer.same_request)


def _send(app: TaskHarbor, messages: Sequence[Message], connection: Any) -> list[Enqueued]:
    """Enqueue is idempotent on the job's id: when the reply is lost, the same messages go again."""
    if connection is not None:
        return app.driver.enqueue(messages, connection=connection)
    for pause in defaults.ENQUEUE_RETRY_SECONDS:
        try:
            return app.driver.enqueue(messages)
        except StoreUnavailable:
            time.sleep(pause)
    return app.driver.enqueue(messages)
