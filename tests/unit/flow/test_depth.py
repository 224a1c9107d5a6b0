"""Parts in parts: how deep, and what is said of those that are too deep."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from taskharbor import Graph, TaskHarbor, chain, chord, group, testing
from taskharbor.canvas import Canvas
from taskharbor.defaults import MAX_FLOW_DEPTH
from taskharbor.errors import InvalidCall

app = TaskHarbor("memory://", name="depth", max_attempts=1)


@app.task
def last(*values: Any) -> Any:
    """What is last in all the lists."""
    value: Any = list(values)
    while isinstance(value, list):
        value = value[-1]
    return value


def in_a_graph(part: Canvas[Any]) -> Canvas[Any]:
    graph = Graph("around")
    graph.add("part", part)
    return graph


WRAPS: dict[str, Callable[[Canvas[Any]], Canvas[Any]]] = {
    "group": lambda part: group(last.s(1), part),
    "step": lambda part: chain(part.link(last.s()), last.s()),
    "header": lambda part: chord([part], last.s()),
    "body": lambda part: chord([last.s(1)], part),
    "graph": in_a_graph,
    "callback": lambda part: last.s(1).link(part),
    "errback": lambda part: last.s(1).on_error(part),
}


def deepest(wrap: Callable[[Canvas[Any]], Canvas[Any]]) -> Canvas[Any]:
    part: Canvas[Any] = last.s(1)
    try:
        while True:
            part = wrap(part)
    except InvalidCall:
        return part


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_the_deepest_flow_works_and_a_deeper_one_is_refused_when_it_is_made(
    wrap: Callable[[Canvas[Any]], Canvas[Any]],
) -> None:
    part = deepest(wrap)
    assert MAX_FLOW_DEPTH - 2 <= part.depth <= MAX_FLOW_DEPTH
    with pytest.raises(InvalidCall, match=f"at most {MAX_FLOW_DEPTH} parts in each other"):
        wrap(part)
    assert repr(part)
    with testing.inline(app):
        flow = app.send(cast(Any, part.set(queue="deep").clone(2)))
        assert flow.get(timeout=0) is not None


def test_steps_side_by_side_are_not_deep() -> None:
    flow: Canvas[Any] = last.s(1)
    for _ in range(3 * MAX_FLOW_DEPTH):
        flow = flow | last.s()
    assert flow.depth == 1


def test_a_graph_that_would_hold_itself_is_refused() -> None:
    graph = Graph("round")
    for part in (graph, group(last.s(1), chain(graph, last.s())), last.s(1).link(graph)):
        with pytest.raises(InvalidCall, match="can't hold itself"):
            graph.add("inside", part)
    assert not graph.nodes
