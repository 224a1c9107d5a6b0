"""From what a user put together to jobs and edges.

A part of a flow is *laid* with what it is *given*: values that jobs before it will have. That makes
jobs, each after those it waits for, and gives a value to lay the next part with. A value is one
job's result or the list of several; lists are made when they are read, by whoever takes them. Only
where several jobs would each wait for the same many others is there a *join* between them, a job
that does nothing: n + m edges instead of n * m. A flow that ends in a list ends in a join too, and
so does each member of a group whose value is a list: one job to wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from taskharbor import defaults
from taskharbor.canvas import NO_TIES, Canvas
from taskharbor.errors import InvalidCall, InvalidJob
from taskharbor.flow.builder import Chain, Chord, Group
from taskharbor.flow.graph import Graph, Source
from taskharbor.flow.plan import EdgeKind
from taskharbor.signature import Signature
from taskharbor.wiring import Take, Wiring, runs


class Value(NamedTuple):
    """What jobs will have come to: the one in ``sources``, or with ``many`` the list of theirs.
    ``made``: all jobs it needs."""

    sources: Sequence[int]
    many: bool
    made: range


class Given(NamedTuple):
    """``args`` and ``kwargs``: what a part takes; ``after``: what it only waits for; ``deaths``: it
    is an error callback of these jobs."""

    args: tuple[Value, ...] = ()
    kwargs: dict[str, Value] = {}  # noqa: RUF012 - never written to; a NamedTuple default
    after: tuple[Value, ...] = ()
    deaths: Sequence[int] = ()

    @property
    def values(self) -> list[Value]:
        return [*self.args, *self.kwargs.values()]


NOTHING = Given()


class Draft:
    """A job before it has an id. ``incoming``: (index of the source, kind), by position."""

    __slots__ = ("allowed", "aside", "call", "errback", "incoming", "label", "tolerated", "wiring")

    def __init__(self, call: Signature[Any]) -> None:
        self.call = call
        self.incoming: list[tuple[int, EdgeKind]] = []
        self.wiring: Wiring | None = None
        self.label = ""
        self.errback = False
        self.aside = False
        """It belongs to an error callback."""
        self.tolerated = False
        self.allowed = False
        """What comes after it takes its failure as a value."""


Join = Callable[[Signature[Any] | None, int, list[int]], Signature[Any]]
"""The call of a join: of what came before it (for its queue), for how many values, of which those
at these places may be failures."""


class Compiler:
    """Lays parts; ``drafts`` are the jobs so far, in topological order. Raises InvalidJob for a
    flow over the limits, InvalidCall for arguments that don't fit."""

    def __init__(self, join: Join) -> None:
        self.drafts: list[Draft] = []
        self._edges = 0
        self._join_call = join

    @property
    def edges(self) -> int:
        return self._edges

    def whole(self, canvas: Canvas[Any]) -> int:
        """Lay all of a flow; the job whose result is the flow's."""
        return self._one(self.lay(canvas, NOTHING)).sources[0]

    def lay(self, canvas: Canvas[Any], given: Given) -> Value:
        first = len(self.drafts)
        match canvas:
            case Signature():
                value = self._lay_job(canvas, given)
            case Chain():
                value = self._lay_steps(canvas.steps, given)
            case Chord():
                value = self._lay_steps((canvas.header, canvas.body), given)
            case Group():
                value = self._lay_group(canvas, given)
            case Graph():
                value = self._lay_graph(canvas, given)
            case _:
                raise InvalidCall(f"{canvas!r} can't be part of a flow")
        if canvas.ties != NO_TIES:
            self._tie(canvas, given, value, range(first, len(self.drafts)))
        return value

    # --- the kinds of parts

    def _lay_steps(self, steps: Sequence[Canvas[Any]], given: Given) -> Value:
        first = len(self.drafts)
        value = self.lay(steps[0], given)
        for step in steps[1:]:
            value = self.lay(step, Given(args=(value,)))
        return value._replace(made=range(first, len(self.drafts)))

    def _lay_group(self, group: Group[Any], given: Given) -> Value:
        first = len(self.drafts)
        members = [member for member in group.members if not _is_empty(member)]
        if not members:
            return self._nothing(given)
        if len(members) > 1:
            given = self._shared(given)
        sources: list[int] = []
        for member in members:
            value = self.lay(member, given)
            if isinstance(member, Group) and value.many:
                sources += value.sources
            else:
                sources += self._one(value).sources
        return Value(sources, True, range(first, len(self.drafts)))

    def _lay_graph(self, graph: Graph, given: Given) -> Value:
        first = len(self.drafts)
        values: dict[str, Value] = {}

        def value_of(source: Source) -> Value:
            if isinstance(source, str):
                return values[source]
            parts = [values[name] for name in source]
            made = range(first, len(self.drafts))
            return Value([part.sources[0] for part in parts], True, made)

        for node in graph.in_order():
            wanted = given
            if node.sources:
                kwargs = {name: value_of(source) for name, source in node.kwargs.items()}
                after = tuple(values[name] for name in node.after)
                wanted = Given(tuple(value_of(source) for source in node.args), kwargs, after)
                wanted = wanted if isinstance(node.call, Signature) else self._shared(wanted)
            value = self._one(self.lay(node.call, wanted))
            self.drafts[value.sources[0]].label = node.name
            values[node.name] = value
        if not graph.nodes:
            return self._nothing(given)
        return value_of(graph.ends())

    def _lay_job(self, call: Signature[Any], given: Given) -> Value:
        draft = Draft(call)
        if given.deaths:
            for source in given.deaths:
                self._wait(draft, source, EdgeKind.DEATH)
            draft.errback = True
            if not call.immutable:
                draft.wiring = Wiring(error=_room_for_error(call))
        else:
            draft.wiring = self._wire(draft, call, given)
        _check_arguments(draft)
        return self._add(draft)

    def _wire(self, draft: Draft, call: Signature[Any], given: Given) -> Wiring | None:
        if call.immutable:
            for value in given.values:
                self._wait_for_all(draft, value)
            wiring = None
        else:
            args = tuple(self._take(draft, call, value) for value in given.args)
            kwargs = {name: self._take(draft, call, value) for name, value in given.kwargs.items()}
            allowed = runs(
                place for place, (_, kind) in enumerate(draft.incoming) if kind is EdgeKind.END
            )
            wiring = Wiring(args, kwargs, allowed) if args or kwargs else None
        for value in given.after:
            self._wait_for_all(draft, value)
        return wiring

    def _take(self, draft: Draft, taker: Signature[Any], value: Value) -> Take:
        first = len(draft.incoming)
        for source in value.sources:
            giver = self.drafts[source].call.task
            if not giver.options.store_result:
                raise InvalidJob(
                    f"{taker.task.name} takes the result of {giver.name}, which keeps none "
                    "(store_result=False); let it keep its result, or write the taker as .si(...)"
                )
        self._wait_for_all(draft, value)
        return Take(first, len(value.sources) if value.many else None)

    # --- joins

    def _one(self, value: Value) -> Value:
        """``value``, as one job's."""
        return self._join((value,), ()) if value.many else value

    def _shared(self, given: Given) -> Given:
        """``given``, for several jobs to wait for."""
        after = given.after
        if sum(len(value.sources) for value in after) > 1:
            after = (self._join((), after),)
        args = tuple(self._narrow(value) for value in given.args)
        kwargs = {name: self._narrow(value) for name, value in given.kwargs.items()}
        return Given(args, kwargs, after, given.deaths)

    def _narrow(self, value: Value) -> Value:
        return self._one(value) if len(value.sources) > 1 else value

    def _nothing(self, given: Given) -> Value:
        """An empty list. What comes next must still wait for what came before, or for a death."""
        return self._join((), (*given.values, *given.after), given.deaths)

    def _join(
        self, values: tuple[Value, ...], waited: tuple[Value, ...], deaths: Sequence[int] = ()
    ) -> Value:
        sources = [source for value in values for source in value.sources]
        allowed = [place for place, source in enumerate(sources) if self.drafts[source].allowed]
        every = [*sources, *(source for value in waited for source in value.sources), *deaths]
        near = self.drafts[every[0]].call if every else None
        draft = Draft(self._join_call(near, len(sources), allowed))
        for source in every:
            self._wait(draft, source, EdgeKind.DEATH if deaths else None)
        draft.errback = bool(deaths)
        draft.aside = any(self.drafts[source].aside for source in every)
        draft.tolerated = draft.aside
        joined = self._add(draft)
        first = min((value.made.start for value in (*values, *waited)), default=joined.made.start)
        return joined._replace(made=range(first, joined.made.stop))

    # --- what hangs on a part

    def _tie(self, canvas: Canvas[Any], given: Given, value: Value, made: range) -> None:
        ties = canvas.ties
        if ties.tolerated:
            for index in made:
                self.drafts[index].tolerated = True
            for source in value.sources:
                self.drafts[source].allowed = True
        for callback in ties.links:
            self.lay(callback, Given(args=(value,)))
        # A callback that waits for many is as good as dead when one of them is.
        header = [index for each in given.values if each.many for index in each.made]
        watched = [index for index in sorted({*header, *made}) if not self.drafts[index].aside]
        for errback in ties.errbacks:
            first = len(self.drafts)
            self.lay(errback, Given(deaths=watched))
            for index in range(first, len(self.drafts)):
                self.drafts[index].aside = self.drafts[index].tolerated = True

    # --- jobs and edges

    def _add(self, draft: Draft) -> Value:
        index = len(self.drafts)
        if index == defaults.MAX_FLOW_NODES:
            raise InvalidJob(
                f"a flow has at most {defaults.MAX_FLOW_NODES:,} jobs; let each take more work "
                "(chunks), or let a task return the next flow"
            )
        self.drafts.append(draft)
        return Value((index,), False, range(index, index + 1))

    def _wait_for_all(self, draft: Draft, value: Value) -> None:
        for source in value.sources:
            self._wait(draft, source)

    def _wait(self, draft: Draft, source: int, kind: EdgeKind | None = None) -> None:
        self._edges += 1
        if self._edges > defaults.MAX_FLOW_EDGES:
            raise InvalidJob(
                f"a flow has at most {defaults.MAX_FLOW_EDGES:,} edges; let fewer jobs wait for "
                "many, or put a job between them"
            )
        allowed = EdgeKind.END if self.drafts[source].allowed else EdgeKind.SUCCESS
        draft.incoming.append((source, kind or allowed))


def _is_empty(part: Canvas[Any]) -> bool:
    """Whether it is a group that adds nothing to a group around it."""
    return isinstance(part, Group) and all(map(_is_empty, part.members))


def _room_for_error(call: Signature[Any]) -> int:
    """How much of a failure an error callback takes: 3 arguments, or 1. Raises InvalidCall."""
    arguments = call.task.arguments
    try:
        arguments.check((None,) * 3 + call.args, call.kwargs)
    except InvalidCall:
        arguments.check((None, *call.args), call.kwargs)
        return 1
    return 3


def _check_arguments(draft: Draft) -> None:
    """Whether the job's arguments will fit. Raises InvalidCall."""
    call, wiring = draft.call, draft.wiring or Wiring()
    given: Iterable[None] = (None,) * (wiring.error or len(wiring.args))
    call.task.arguments.check((*given, *call.args), {**call.kwargs, **wiring.kwargs})
