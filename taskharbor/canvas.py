"""What can be put together to a flow, and what every such thing can do."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar, Unpack

from taskharbor import defaults
from taskharbor.errors import InvalidCall
from taskharbor.options import CallOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskharbor.app import TaskHarbor
    from taskharbor.flow.builder import Chain

R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class Ties(NamedTuple):
    """What hangs on a part of a flow. ``tolerated``: the flow goes on if it fails."""

    links: tuple[Canvas[Any], ...] = ()
    errbacks: tuple[Canvas[Any], ...] = ()
    tolerated: bool = False


NO_TIES = Ties()


class Canvas(Generic[R_co]):
    """A signature, chain, group, chord or graph: calls written down and not made yet. Never changed
    once made: what adds to it gives a new one. ``R_co``: what the result's ``get()`` gives."""

    # No ABC: what every task returns is asked whether it is one of these, and isinstance() takes
    # longer with one.
    __slots__ = ("depth", "ties")
    depth: int
    """How many parts stand in each other."""
    ties: Ties

    @abstractmethod
    def tied(self, ties: Ties) -> Self:
        """The same with ``ties`` in place of its own."""

    @abstractmethod
    def parts(self) -> Iterable[Canvas[Any]]:
        """What it is put together from, without what hangs on it."""

    @abstractmethod
    def clone(self, *args: Any, **kwargs: Any) -> Self:
        """A copy that begins with ``args`` before its own and ``kwargs`` over its own."""

    @abstractmethod
    def set(self, **options: Unpack[CallOptions]) -> Self:
        """A copy with ``options`` laid over those of its jobs."""

    @abstractmethod
    def app_of(self) -> TaskHarbor | None:
        """The app of the first task in it."""

    def __or__(self, other: Canvas[S]) -> Chain[S]:
        """First this, then ``other`` with what this has returned before its own arguments. Raises
        InvalidCall."""
        from taskharbor.flow.builder import Chain

        check_part("a chain", other)
        return Chain((*Chain.steps_of(self), *Chain.steps_of(other)))

    if not TYPE_CHECKING:  # a type checker shall say what is wrong with `1 | add.s()`

        def __ror__(self, other: object) -> None:
            """Raises InvalidCall: ``other`` is no part of a flow, or it would have been asked."""
            check_part("a chain", other)

    def link(self, callback: Canvas[Any]) -> Self:
        """A copy that also starts ``callback``, with its result, when it has succeeded. What
        becomes of that is not waited for by what comes after this. Raises InvalidCall."""
        check_part("a callback", callback)
        return self.tied(self.ties._replace(links=(*self.ties.links, callback)))

    def link_error(self, errback: Canvas[Any]) -> Self:
        """A copy that starts ``errback`` when one of its jobs is dead.

        It gets the dead job (a ``JobInfo``), the exception (a ``TaskFailed``) and the traceback's
        text before its own arguments; only the job's id if there is room for one more
        argument only; nothing if it is immutable. Of several deaths it hears of one.
        Raises InvalidCall.
        """
        check_part("an error callback", errback)
        return self.tied(self.ties._replace(errbacks=(*self.ties.errbacks, errback)))

    on_error = link_error

    def allow_failure(self, allowed: bool = True) -> Self:
        """A copy whose failure does not fail the flow: what comes after it gets the exception
        (``TaskFailed`` or ``JobCancelled``) as its value. Of a group, every member's."""
        return self.tied(self.ties._replace(tolerated=allowed))


def depth_above(parts: Iterable[Canvas[Any]], ties: Ties = NO_TIES) -> int:
    """The depth of what is made of ``parts``. Raises InvalidCall where that is too deep."""
    depth = 1 + max((part.depth for part in parts), default=0)
    if ties is not NO_TIES:
        depth = max(depth, 1 + max((x.depth for x in (*ties.links, *ties.errbacks)), default=0))
    if depth > defaults.MAX_FLOW_DEPTH:
        raise InvalidCall(
            f"a flow has at most {defaults.MAX_FLOW_DEPTH} parts in each other (a group in a chain "
            "in a chord …); put the steps of a chain beside each other, give the jobs names in a "
            "Graph, or let a task return the next flow"
        )
    return depth


def holds(canvas: Canvas[Any], wanted: Canvas[Any]) -> bool:
    """Whether ``wanted`` is in ``canvas``, or is it."""
    seen: set[int] = set()
    left: list[Canvas[Any]] = [canvas]
    while left:
        part = left.pop()
        if part is wanted:
            return True
        if part.depth and id(part) not in seen:
            seen.add(id(part))
            left += (*part.parts(), *part.ties.links, *part.ties.errbacks)
    return False


def check_part(what: str, part: object) -> None:
    """Whether ``what`` can be made of ``part``. Raises InvalidCall, a TypeError."""
    if not isinstance(part, Canvas):
        raise InvalidCall(
            f"{what} is made of signatures, chains, groups, chords and graphs, not of "
            f"{part!r}; write a call down with task.s(...)"
        )
