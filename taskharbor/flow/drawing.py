"""A flow as a picture: a tree for the terminal, Mermaid for documents, DOT for Graphviz.

A flow is no tree: a job that waits for several is shown below the last one of them in the flow's
order, and says how many more there are. Jobs that are alike (the same task, predecessors and
successors) fold to one line when they are many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from taskharbor.flow.plan import EdgeKind
from taskharbor.flow.reading import edges_of, no_flow, nodes_of
from taskharbor.states import State

if TYPE_CHECKING:
    from taskharbor.drivers.flows import FlowDriver, FlowInfo, FlowNode
    from taskharbor.flow.plan import Edge

FOLD_OVER = 6
"""How many jobs that are alike are drawn one by one."""

_IN_MERMAID = str.maketrans(
    {
        '"': "#quot;",
        "\\": "#92;",
        "#": "#35;",
        "<": "#lt;",
        ">": "#gt;",
        "&": "#amp;",
        "\n": "<br/>",
        "\r": "",
    }
)
"""A label in quotes is HTML, and has no escapes but these; a backslash before an n would break the
line."""

_SIGNS = {
    State.SUCCEEDED: "✓",
    State.DEAD: "✗",
    State.CANCELLED: "–",
    State.RUNNING: "▶",
    State.READY: "○",
    State.SCHEDULED: "◷",
    State.BLOCKED: "·",
}
_COLORS = {
    State.SUCCEEDED: "#c6f0c6",
    State.DEAD: "#f6b8b8",
    State.CANCELLED: "#dddddd",
    State.RUNNING: "#b8d8f6",
    State.READY: "#fff3b8",
    State.SCHEDULED: "#fff3b8",
    State.BLOCKED: "#ffffff",
}


class Bunch(NamedTuple):
    """Jobs drawn as one: with the same task, and arrows from and to the same ones. ``kind``: what
    the arrows to them ask for."""

    nodes: tuple[FlowNode, ...]
    before: tuple[int, ...]
    kind: EdgeKind

    @property
    def number(self) -> int:
        return self.nodes[0].number

    @property
    def title(self) -> str:
        first = self.nodes[0]
        if len(self.nodes) > 1:
            return f"{first.task} × {len(self.nodes):,}"
        return f"{first.label}: {first.task}" if first.label else first.task

    @property
    def states(self) -> Counter[State]:
        return Counter(node.state for node in self.nodes)

    @property
    def state(self) -> State:
        """The one to colour by: the worst."""
        states = self.states
        worst = (State.DEAD, State.RUNNING, State.READY, State.SCHEDULED, State.BLOCKED)
        return next((s for s in (*worst, State.CANCELLED) if states[s]), State.SUCCEEDED)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A whole flow, as it stood when it was read: ``nodes`` by number, and ``edges``."""

    info: FlowInfo
    nodes: tuple[FlowNode, ...]
    edges: tuple[Edge, ...]

    def bunches(self, *, fold: bool = True) -> list[Bunch]:
        """What is drawn, in the flow's order."""
        number = {node.id: node.number for node in self.nodes}
        before: dict[int, dict[int, EdgeKind]] = {node.number: {} for node in self.nodes}
        after: dict[int, set[int]] = {node.number: set() for node in self.nodes}
        for edge in self.edges:
            source, target = number[edge.source], number[edge.target]
            before[target][source] = edge.kind
            after[source].add(target)
        alike: dict[object, list[FlowNode]] = {}
        for node in self.nodes:
            key: object = node.number
            if fold and not node.label:
                near = tuple(before[node.number]), tuple(sorted(after[node.number]))
                key = node.task, node.errback, near
            alike.setdefault(key, []).append(node)
        bunches = []
        for nodes in alike.values():
            groups = [tuple(nodes)] if len(nodes) > FOLD_OVER else [(node,) for node in nodes]
            for group in groups:
                kinds = before[group[0].number]
                kind = next(iter(kinds.values()), EdgeKind.SUCCESS)
                bunches.append(Bunch(group, tuple(sorted(kinds)), kind))
        return sorted(bunches, key=lambda bunch: bunch.number)

    def tree(self) -> str:
        """Lines of text, one for each job or bunch of jobs."""
        return "\n".join(_Tree(self.bunches()).lines())

    def mermaid(self) -> str:
        """A Mermaid flowchart, as Markdown shows it."""
        bunches = self.bunches()
        lines = ["flowchart TD"]
        for bunch in bunches:
            title = f"{_SIGNS[bunch.state]} {bunch.title}".translate(_IN_MERMAID)
            lines.append(f'    n{bunch.number}["{title}"]:::{bunch.state}')
        for source, bunch in _arrows(bunches):
            arrow = {"death": "-. error .->", "end": "-->|end|"}.get(bunch.kind, "-->")
            lines.append(f"    n{source} {arrow} n{bunch.number}")
        lines += [
            f"    classDef {state} fill:{color},stroke:#555,color:#111"
            for state, color in _COLORS.items()
        ]
        return "\n".join(lines)

    def dot(self) -> str:
        """A Graphviz digraph."""
        bunches = self.bunches()
        lines = ["digraph flow {", '    node [shape=box, style="filled,rounded"];']
        for bunch in bunches:
            title = bunch.title.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(
                f'    n{bunch.number} [label="{title}\\n{_summary(bunch)}", '
                f'fillcolor="{_COLORS[bunch.state]}"];'
            )
        styles = {"death": ' [style=dashed, label="error"]', "end": ' [label="end"]'}
        lines += [
            f"    n{source} -> n{bunch.number}{styles.get(bunch.kind, '')};"
            for source, bunch in _arrows(bunches)
        ]
        return "\n".join([*lines, "}"])


def read_drawing(driver: FlowDriver, flow_id: str) -> Drawing:
    """Raises JobNotFound."""
    info = driver.flow(flow_id)
    if info is None:
        raise no_flow(flow_id)
    nodes = tuple(nodes_of(driver, flow_id))
    # A flow that is being stored or pruned has edges to jobs that were not there, or not any more.
    there = {node.id for node in nodes}
    edges = (edge for edge in edges_of(driver, flow_id) if there.issuperset(edge[:2]))
    return Drawing(info, nodes, tuple(edges))


def _arrows(bunches: Sequence[Bunch]) -> Iterator[tuple[int, Bunch]]:
    """Each pair of bunches that an arrow goes between, once: (number of the source, target)."""
    drawn_as = _drawn_as(bunches)
    for bunch in bunches:
        for source in dict.fromkeys(drawn_as[number] for number in bunch.before):
            yield source, bunch


def _drawn_as(bunches: Sequence[Bunch]) -> Mapping[int, int]:
    return {node.number: bunch.number for bunch in bunches for node in bunch.nodes}


def _summary(bunch: Bunch) -> str:
    states = bunch.states
    if len(bunch.nodes) == 1:
        return str(bunch.nodes[0].state)
    return ", ".join(f"{states[state]:,} {state}" for state in State if states[state])


_UNDER = {"": "", "↓ ": "", "├─ ": "│  ", "└─ ": "   "}
"""What stands before the lines below one with this mark."""


class _Tree:
    """Bunches below those that they wait for."""

    def __init__(self, bunches: Sequence[Bunch]) -> None:
        drawn_as = _drawn_as(bunches)
        self._roots: list[Bunch] = []
        self._below: dict[int, list[Bunch]] = {}
        self._others: dict[int, int] = {}
        for bunch in bunches:
            sources = sorted({drawn_as[number] for number in bunch.before})
            if sources:
                self._below.setdefault(sources[-1], []).append(bunch)
            else:
                self._roots.append(bunch)
            self._others[bunch.number] = len(sources) - 1

    def lines(self) -> Iterator[str]:
        # Not recursive: a chain may be longer than Python's stack.
        todo = [(bunch, "", "") for bunch in reversed(self._roots)]
        while todo:
            bunch, lead, mark = todo.pop()
            yield lead + mark + self._line(bunch)
            inner = lead + _UNDER[mark]
            below = self._below.get(bunch.number, [])
            # What comes alone goes on below, without a step to the right: chains may be long.
            final = "↓ " if len(below) == 1 else "└─ "
            marks = [*["├─ "] * (len(below) - 1), final]
            todo += [(each, inner, marks.pop()) for each in reversed(below)]

    def _line(self, bunch: Bunch) -> str:
        parts = [f"{_SIGNS[bunch.state]} {bunch.title}", f" [{_summary(bunch)}]"]
        if self._others[bunch.number] > 0:
            parts.append(f" (and after {self._others[bunch.number]} more)")
        if bunch.kind is EdgeKind.DEATH:
            parts.append(" (on error)")
        return "".join(parts)
