"""Flows that are no chain of groups: parts by name, and what each of them waits for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Unpack

from taskharbor import defaults
from taskharbor.canvas import NO_TIES, Canvas, Ties, check_part, depth_above, holds
from taskharbor.errors import InvalidCall, InvalidJob
from taskharbor.flow.composed import Composed
from taskharbor.options import CallOptions

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor

Source = str | Sequence[str]
"""The name of a node, for its value; several, for the list of theirs."""


class GraphNode(NamedTuple):
    """``args`` are given before the call's own arguments, ``kwargs`` over its own; ``after``: nodes
    that it waits for without taking their values."""

    name: str
    call: Canvas[Any]
    args: tuple[Source, ...]
    kwargs: Mapping[str, Source]
    after: tuple[str, ...]

    @property
    def sources(self) -> list[str]:
        """Every node that it waits for."""
        taken = [*self.args, *self.kwargs.values()]
        return [name for source in taken for name in _names(source)] + list(self.after)


class Graph(Composed[Any]):
    """Any directed graph without circles:

        order = Graph("order 7")
        order.add("stock", check_stock.s(7))
        order.add("price", price.s(7))
        order.add("bill", bill.s(), inputs={"price": "price"}, after=["stock"])
        order.delay().get()

    Its value is that of ``result``; without one, of the only node that no other waits for; where
    there are several such, the list of theirs, in the order they were added. Where a value comes
    into a graph, in a chain, it goes to the nodes that wait for no other. Raises InvalidCall for a
    ``result`` that is no name.
    """

    __slots__ = ("name", "nodes", "result")

    def __init__(self, name: str = "", *, result: str | None = None) -> None:
        if result is not None and not isinstance(result, str):
            raise InvalidCall(f"a graph's result is {result!r}; use the name of one node")
        self.name = name
        self.result = result
        self.nodes: dict[str, GraphNode] = {}
        self.ties = NO_TIES
        self.depth = 1

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self.nodes)} nodes>"

    def add(
        self,
        name: str,
        call: Canvas[Any],
        *,
        after: Iterable[str] = (),
        inputs: Mapping[str, Source] | Sequence[Source] = (),
    ) -> str:
        """Add a node, and return its name.

        ``inputs``: the nodes whose values it takes, by the names of its parameters, or in order
        before its own arguments; a list of names stands for the list of their values. ``after``:
        nodes that it only waits for. Nodes may be named before they are added. Raises InvalidCall.
        """
        check_name("the name of a node", name, most=defaults.MAX_FLOW_NAME_CHARS)
        if name in self.nodes:
            raise InvalidCall(f"graph {self.name!r} has a node {name!r} already; take another name")
        check_part(f"node {name!r}", call)
        if holds(call, self):
            raise InvalidCall(f"node {name!r} has this graph in it; a graph can't hold itself")
        depth = depth_above((call,))
        for given in (after, inputs):
            if isinstance(given, str):
                raise InvalidCall(f"node {name!r} waits for {given!r}; put that in a list")
        by_name = isinstance(inputs, Mapping)
        kwargs: Mapping[str, Source] = dict(inputs) if isinstance(inputs, Mapping) else {}
        args = () if by_name else tuple(inputs)
        waited = tuple(after)
        _check_sources(name, [*args, *kwargs.values()], waited)
        self.nodes[name] = GraphNode(name, call, args, kwargs, waited)
        self.depth = max(self.depth, depth)
        return name

    def in_order(self) -> list[GraphNode]:
        """The nodes, each after all that it waits for. Raises InvalidJob, naming an unknown node or
        a circle."""
        for node in self.nodes.values():
            for source in node.sources:
                if source not in self.nodes:
                    known = ", ".join(self.nodes)
                    raise InvalidJob(
                        f"node {node.name!r} waits for {source!r}, which graph {self.name!r} does "
                        f"not have; it has {known}"
                    )
        sorter = TopologicalSorter({node.name: node.sources for node in self.nodes.values()})
        try:
            return [self.nodes[name] for name in sorter.static_order()]
        except CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            raise InvalidJob(
                f"graph {self.name!r} goes in a circle: {circle}; a job can't wait for itself"
            ) from None

    def ends(self) -> Source:
        """The node or nodes whose value is the graph's. Raises InvalidJob."""
        if self.result is not None:
            if self.result not in self.nodes:
                raise InvalidJob(f"graph {self.name!r} has no node {self.result!r} for its result")
            return self.result
        waited_for = {source for node in self.nodes.values() for source in node.sources}
        ends = [name for name in self.nodes if name not in waited_for]
        return ends[0] if len(ends) == 1 else ends

    def tied(self, ties: Ties) -> Self:
        return self._with(self.nodes, ties)

    def parts(self) -> list[Canvas[Any]]:
        return [node.call for node in self.nodes.values()]

    def clone(self, *args: Any, **kwargs: Any) -> Self:
        return self._with(
            {
                node.name: node
                if node.sources
                else _calling(node, node.call.clone(*args, **kwargs))
                for node in self.nodes.values()
            },
            self.ties,
        )

    def set(self, **options: Unpack[CallOptions]) -> Self:
        from taskharbor.flow.builder import later_options

        later = later_options(options)
        return self._with(
            {
                node.name: _calling(node, node.call.set(**(later if node.sources else options)))
                for node in self.nodes.values()
            },
            self.ties,
        )

    def app_of(self) -> TaskHarbor | None:
        from taskharbor.flow.builder import app_of

        return app_of(self.parts())

    def _with(self, nodes: Mapping[str, GraphNode], ties: Ties) -> Self:
        other = type(self)(self.name, result=self.result)
        other.nodes = dict(nodes)
        other.ties = ties
        other.depth = depth_above(other.parts(), ties)
        return other


def check_name(what: str, name: object, *, most: int | None = None) -> None:
    """Whether every store can hold it and every drawing show it. Raises InvalidCall."""
    if not isinstance(name, str) or not name.isprintable():
        raise InvalidCall(f"{what} is {name!r}; use a str of printable characters")
    if most is not None and len(name) > most:
        raise InvalidCall(f"{what} has {len(name):,} characters; use at most {most}")


def _check_sources(name: str, taken: Iterable[object], waited: Iterable[object]) -> None:
    """What ``taken`` holds are names and lists of them, ``waited`` names. Raises InvalidCall."""
    for source in taken:
        listed = source if isinstance(source, Sequence) else (source,)
        if not all(isinstance(each, str) for each in listed):
            raise InvalidCall(
                f"node {name!r} takes {source!r}; use the name of a node, or a list of names"
            )
    for source in waited:
        if not isinstance(source, str):
            raise InvalidCall(f"node {name!r} waits for {source!r}; use the name of a node")


def _calling(node: GraphNode, call: Canvas[Any]) -> GraphNode:
    return node._replace(call=call)


def _names(source: Source) -> Sequence[str]:
    return (source,) if isinstance(source, str) else source
