"""Looking at flows. Nothing here writes."""

from __future__ import annotations

import re

from taskharbor.drivers.base import Outcome
from taskharbor.drivers.flows import EdgePage, FlowInfo, FlowNode, FlowPage, Input
from taskharbor.drivers.sqlite.flow_store import KINDS
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.transaction import Row, Tx
from taskharbor.errors import InvalidCursor
from taskharbor.flow.plan import Edge
from taskharbor.flow.progress import flow_state
from taskharbor.states import Reason, State

_SQL = load("flow_look")

_FLOW_CURSOR = re.compile(r"before-([1-9][0-9]{0,17})\Z")
_EDGE_CURSOR = re.compile(r"after-([0-9]{1,18})-([0-9]{1,18})-([0-9]{1,18})\Z")
_FROM_THE_NEWEST = 1 << 62
MAX_PAGE = 1000


def flow(tx: Tx, flow_id: str) -> FlowInfo | None:
    try:
        row = tx.one(_SQL["flow"], (flow_id,))
    except UnicodeEncodeError:  # a lone surrogate: no stored id has one
        return None
    return None if row is None else _info(row)


def _info(row: Row) -> FlowInfo:
    _, flow_id, name, size, sealed, succeeded, dead, cancelled, failed, cancel_reason, *rest = row
    created_at, finished_at, expires_at, key, result, parent = rest
    return FlowInfo(
        id=flow_id,
        name=name,
        state=flow_state(
            sealed=bool(sealed),
            open_nodes=size - succeeded - dead - cancelled,
            failed=failed,
            cancelled=cancel_reason is not None,
        ),
        size=size,
        finished={State.SUCCEEDED: succeeded, State.DEAD: dead, State.CANCELLED: cancelled},
        created_at=created_at,
        finished_at=finished_at,
        expires_at=expires_at,
        idempotency_key=key,
        result=result,
        parent=parent,
    )


def list_flows(tx: Tx, cursor: str | None, limit: int) -> FlowPage:
    before = _FROM_THE_NEWEST if cursor is None else _read(_FLOW_CURSOR, cursor)[0]
    limit = max(1, min(limit, MAX_PAGE))
    rows = tx.all(_SQL["flows"], (before, limit + 1))
    more = len(rows) > limit
    rows = rows[:limit]
    return FlowPage([_info(row) for row in rows], f"before-{rows[-1][0]}" if more else None)


def _read(pattern: re.Pattern[str], cursor: str) -> tuple[int, ...]:
    match = pattern.match(cursor)
    if match is None:
        raise InvalidCursor(
            f"{cursor!r} is no cursor of this store; pass the cursor of the page before, or None"
        )
    return tuple(map(int, match.groups()))


def inputs(tx: Tx, job_id: str, after: int, limit: int) -> list[Input]:
    try:
        rows = tx.all(_SQL["inputs"], (job_id, after, limit))
    except UnicodeEncodeError:
        return []
    return [
        Input(position, source, Outcome(State(state), Reason(reason), result, error))
        for position, source, state, reason, result, error in rows
    ]


def input_results(tx: Tx, job_id: str, after: int, limit: int) -> list[bytes]:
    try:
        rows = tx.all(_SQL["input_results"], (job_id, after, after + limit))
    except UnicodeEncodeError:
        return []
    return [result for place, (position, result) in enumerate(rows, after + 1) if position == place]


def flow_nodes(tx: Tx, flow_id: str, after: int, limit: int) -> list[FlowNode]:
    try:
        rows = tx.all(_SQL["nodes"], (flow_id, after, limit))
    except UnicodeEncodeError:
        return []
    return [_node(row) for row in rows]


def _node(row: Row) -> FlowNode:
    number, job_id, task, state, reason, label, errback, tolerated = row
    ends = (State(state), Reason(reason), label, bool(errback), bool(tolerated))
    return FlowNode(number, job_id, task, *ends)


def flow_edges(tx: Tx, flow_id: str, cursor: str | None, limit: int) -> EdgePage:
    place = (0, 0, -1) if cursor is None else _read(_EDGE_CURSOR, cursor)
    limit = max(1, min(limit, MAX_PAGE))
    try:
        rows = tx.all(_SQL["edges"], (flow_id, place[0], *place, limit + 1))
    except UnicodeEncodeError:
        rows = []
    edges = [Edge(row[2], row[3], row[4], KINDS[row[5]]) for row in rows[:limit]]
    if len(rows) <= limit:
        return EdgePage(edges, None)
    index, target, _, _, position, _ = rows[limit - 1]
    return EdgePage(edges, f"after-{index}-{target}-{position}")
