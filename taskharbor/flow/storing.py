"""From a flow written down to a flow in the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from taskharbor import codec, defaults
from taskharbor.canvas import Canvas
from taskharbor.enqueue import call_of, request_of
from taskharbor.errors import ConfigurationError, InvalidJob, StoreUnavailable
from taskharbor.flow.compiler import Compiler, Draft
from taskharbor.flow.graph import Graph, check_name
from taskharbor.flow.plan import Edge, Flow, Node, Part
from taskharbor.flow.result import FlowResult, GroupResult
from taskharbor.flow.tasks import JOIN, find, join_call
from taskharbor.message import Message, Retention, check_key, check_seconds
from taskharbor.middleware import EnqueueRequest
from taskharbor.result import AsyncResult
from taskharbor.signals import JobEnqueued
from taskharbor.signature import Signature

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.drivers.flows import FlowDriver, FlowEnqueued
    from taskharbor.flow.composed import FlowOptions
    from taskharbor.lease import Reservation

logger = logging.getLogger(__name__)

_OF_THE_FLOW = frozenset({"name", "idempotency_key", "expires", "connection"})
_LEAST_RETENTION = Retention(*(defaults.LEASE_SECONDS,) * 3)
"""A part whose reply was lost is sent again, and must find its flow: it would run a second time."""
_NOT_FOR_ITS_JOBS = ("job_id", "idempotency_key", "key_until", "connection")


T = TypeVar("T")

Stored = tuple[T, list[AsyncResult[Any]]]
"""A flow, and its jobs."""


class Laid(NamedTuple):
    """A flow as jobs that have no ids yet. ``result``: whose result is the flow's. ``group``: that
    is a list."""

    drafts: list[Draft]
    edges: int
    result: int

    @property
    def group(self) -> bool:
        return self.drafts[self.result].call.task.name == JOIN


def app_for(canvas: Canvas[Any]) -> TaskHarbor:
    """Raises ConfigurationError for a flow that no task has made: ``group()``, an empty graph."""
    app = canvas.app_of()
    if app is None:
        raise ConfigurationError(
            "a flow without a single task belongs to no app; store it with app.send(flow)"
        )
    return app


def flows_of(app: TaskHarbor) -> FlowDriver:
    """The app's store. Raises ConfigurationError if it keeps no flows."""
    driver = app.driver
    if not driver.capabilities.flows:
        raise ConfigurationError(
            f"the store {driver.url} keeps no flows; use one of memory, SQLite, Redis or Postgres"
        )
    return cast("FlowDriver", driver)


def store_flow(app: TaskHarbor, canvas: Canvas[Any], options: FlowOptions) -> FlowResult[Any]:
    """Store a flow, sealed: it runs from now on. Raises like ``Canvas.delay()``."""
    result, _ = _store_sealed(app, canvas, options)
    return result


def send_tied(app: TaskHarbor, call: Signature[Any]) -> AsyncResult[Any]:
    """Store a call with callbacks: a flow, in which it is the first job. The result is the call's
    own."""
    options: dict[str, Any] = {}
    given = dict(call.task.call_options)
    for name in ("idempotency_key", "connection"):
        if name in given:
            options[name] = given.pop(name)
    if options:
        plain = call.task.using(idempotency_key=None, connection=None)
        plain.call_options = cast(Any, given)
        call = Signature(plain, call.args, call.kwargs, call.immutable, call.ties)
    result, _ = _store_sealed(app, call, cast("FlowOptions", options))
    return result.result


def store_awaited(app: TaskHarbor, canvas: Canvas[Any], job: Reservation) -> str:
    """Store a flow for a job to wait for: whole, not sealed. Its id. Raises like
    ``Canvas.delay()``."""
    driver = flows_of(app)
    laid = _lay(app, canvas)
    store = partial(_store_unsealed, app, driver, canvas, laid, job)
    flow_id, _ = _through_middleware(app, laid, store)
    return flow_id


def _store_unsealed(
    app: TaskHarbor, driver: FlowDriver, canvas: Canvas[Any], laid: Laid, job: Reservation
) -> Stored[str]:
    flow_id = driver.new_id_beside(job.id)
    nodes, edges = _nodes(app, driver, flow_id, laid)
    flow = _head(flow_id, canvas, laid, nodes, {}, least=_until_taken(app, job))
    _send_all(driver, flow, nodes, edges, seal=False, connection=None)
    return flow_id, _told(app, nodes)


def _until_taken(app: TaskHarbor, job: Reservation) -> Retention:
    """How long ``job`` may be in coming back for what its flow came to: as long as an operator may
    retry it, and its queue may be paused for a day."""
    task = find(app, job.task)
    kept = task.options if task is not None else app.own_options()
    longest = max(kept.keep_succeeded, kept.keep_cancelled, kept.keep_dead)
    return Retention(*(max(longest, defaults.KEEP_AWAITED_SECONDS),) * 3)


def _store_sealed(
    app: TaskHarbor, canvas: Canvas[Any], options: FlowOptions
) -> Stored[FlowResult[Any]]:
    own, of_jobs = _sort_options(options)
    driver = flows_of(app)
    laid = _lay(app, canvas.set(**of_jobs) if of_jobs else canvas)
    return _through_middleware(app, laid, partial(_store_laid, app, driver, canvas, own, laid))


def _sort_options(options: FlowOptions) -> tuple[dict[str, Any], Any]:
    """Those of the flow, and those for its jobs. Raises InvalidJob."""
    own = {name: value for name, value in options.items() if name in _OF_THE_FLOW}
    if own.get("idempotency_key") is not None:
        check_key(own["idempotency_key"])
    expires = own.get("expires")
    if expires is not None:
        check_seconds("expires", expires, most=defaults.MAX_DELAY_SECONDS)
        if not expires:
            raise InvalidJob("expires is 0; a flow must be given more than 0 seconds")
    return own, {name: value for name, value in options.items() if name not in _OF_THE_FLOW}


def _lay(app: TaskHarbor, canvas: Canvas[Any]) -> Laid:
    compiler = Compiler(partial(join_call, app))
    result = compiler.whole(canvas)
    unknown = sorted(
        {
            draft.call.task.name
            for draft in compiler.drafts
            if find(app, draft.call.task.name) is None
        }
    )
    if unknown:
        raise ConfigurationError(
            f"app {app.name!r} has no task {', '.join(map(repr, unknown))}; all tasks of a flow "
            "must be of one app"
        )
    return Laid(compiler.drafts, compiler.edges, result)


def _through_middleware(app: TaskHarbor, laid: Laid, store: Callable[[], Stored[T]]) -> Stored[T]:
    """Store what middleware makes of the calls. It can change each, but neither drop nor add."""
    if not app.stack.enqueues:
        return store()
    drafts = [draft for draft in laid.drafts if draft.call.task.name != JOIN]
    stored: list[Stored[T]] = []

    def enqueue(requests: list[EnqueueRequest]) -> list[AsyncResult[Any]]:
        if len(requests) != len(drafts):
            raise ConfigurationError(
                f"a middleware made {len(requests)} calls of the {len(drafts)} of a flow; it may "
                "change them, but what waits for which is decided already"
            )
        for draft, request in zip(drafts, requests, strict=True):
            draft.call = call_of(request, immutable=draft.call.immutable)
        stored.append(store())
        return stored[-1][1]

    app.stack.enqueue([request_of(draft.call) for draft in drafts], enqueue)
    if not stored:
        raise ConfigurationError("a middleware did not let a flow be stored, and raised nothing")
    return stored[-1]


# --- one flow -----------------------------------------------------------------------------------


def _store_laid(
    app: TaskHarbor, driver: FlowDriver, canvas: Canvas[Any], own: dict[str, Any], laid: Laid
) -> Stored[FlowResult[Any]]:
    flow_id = driver.new_job_id(own.get("idempotency_key"))
    nodes, edges = _nodes(app, driver, flow_id, laid)
    flow = _head(flow_id, canvas, laid, nodes, own)
    if flow.idempotency_key is not None:
        flow = flow._replace(digest=_digest(laid, nodes))
    connection = own.get("connection")
    answer = _send_all(driver, flow, nodes, edges, seal=True, connection=connection)
    kind = GroupResult if laid.group else FlowResult
    created = answer.created
    result_id = flow.result if created else None
    result: FlowResult[Any] = kind(answer.id, app, created, answer.same_request, result_id)
    return result, _told(app, nodes) if created else []


def _told(app: TaskHarbor, nodes: Sequence[Node]) -> list[AsyncResult[Any]]:
    """The jobs, which the store has now."""
    if app.signals.enqueued.handlers:
        for node in nodes:
            message = node.message
            app.signals.enqueued.send(JobEnqueued(message.id, message.task, message.queue, True))
    return [AsyncResult[Any](node.message.id, app) for node in nodes]


def _nodes(
    app: TaskHarbor, driver: FlowDriver, flow_id: str, laid: Laid
) -> tuple[list[Node], list[Edge]]:
    nodes: list[Node] = []
    edges: list[Edge] = []
    for draft in laid.drafts:
        message = _message(driver.new_id_beside(flow_id), draft)
        edges += [
            Edge(nodes[source].message.id, message.id, position, kind)
            for position, (source, kind) in enumerate(draft.incoming)
        ]
        waits = len(draft.incoming)
        nodes.append(Node(message, waits, draft.errback, draft.tolerated, draft.label))
    return nodes, edges


def _message(job_id: str, draft: Draft) -> Message:
    call = draft.call
    for option in _NOT_FOR_ITS_JOBS:
        if call.task.call_options.get(option) is not None:
            where = "the flow's apply_async()" if option != "job_id" else "no flow"
            raise InvalidJob(
                f"{call.task.name} has the option {option}, which a job of a flow can't have; it "
                f"is for {where}"
            )
    payload = codec.encode_call(call.args, call.kwargs, limit=call.task.options.max_payload_bytes)
    return call.task.template.wired(job_id, payload, draft.wiring)


def _head(
    flow_id: str,
    canvas: Canvas[Any],
    laid: Laid,
    nodes: Sequence[Node],
    own: dict[str, Any],
    *,
    least: Retention = _LEAST_RETENTION,
) -> Flow:
    name = own.get("name") or (canvas.name if isinstance(canvas, Graph) else "")
    check_name("the name of a flow", name, most=defaults.MAX_FLOW_NAME_CHARS)
    kept = {least, *(node.message.retention for node in nodes)}
    return Flow(
        id=flow_id,
        size=len(nodes),
        edges=laid.edges,
        name=name,
        result=nodes[laid.result].message.id,
        idempotency_key=own.get("idempotency_key"),
        expires_in=own.get("expires"),
        retention=Retention(*(max(seconds) for seconds in zip(*kept, strict=True))),
    )


def _digest(laid: Laid, nodes: Sequence[Node]) -> bytes:
    """Of everything but the ids."""
    digest = blake2b(digest_size=16)
    for draft, node in zip(laid.drafts, nodes, strict=True):
        said = (node.message.task, node.message.body, draft.incoming, draft.errback)
        digest.update(repr(said).encode())
    return digest.digest()


def _send_all(
    driver: FlowDriver,
    flow: Flow,
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    *,
    seal: bool,
    connection: Any,
) -> FlowEnqueued:
    for part in parts(flow, nodes, edges, seal=seal):
        answer = _send(driver, part, connection)
        if not answer.created:
            if part.first and connection is None:
                _drop(driver, flow.id)
            break
    return answer


def _drop(driver: FlowDriver, flow_id: str) -> None:
    """Let go of a flow whose key another one has got while this one was being stored."""
    try:
        driver.delete_flow(flow_id)
    except StoreUnavailable:
        # It would have been an hour early: what is never sealed is pruned anyway.
        logger.warning("flow %s, which nobody needs, could not be deleted now", flow_id)


def _send(driver: FlowDriver, part: Part, connection: Any) -> FlowEnqueued:
    """A part may be sent again: so it is, when the reply is lost."""
    if connection is not None:
        return driver.enqueue_flow(part, connection=connection)
    for pause in defaults.ENQUEUE_RETRY_SECONDS:
        try:
            return driver.enqueue_flow(part)
        except StoreUnavailable:
            time.sleep(pause)
    return driver.enqueue_flow(part)


def parts(
    flow: Flow, nodes: Sequence[Node], edges: Sequence[Edge], *, seal: bool
) -> Iterator[Part]:
    """The flow in pages, none of which names a job that has not come yet. ``edges`` in the order
    of their targets."""
    number = {node.message.id: index for index, node in enumerate(nodes)}
    sent = first = 0
    while True:
        page = tuple(nodes[first : first + defaults.BATCH])
        there = first + len(page)
        last = sent
        while last < len(edges) and last - sent < defaults.BATCH:
            if number[edges[last].target] >= there:
                break
            last += 1
        over = there == len(nodes) and last == len(edges)
        yield Part(flow, page, first, tuple(edges[sent:last]), seal and over)
        first, sent = there, last
        if over:
            return
