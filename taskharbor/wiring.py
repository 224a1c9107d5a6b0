"""Which results of its predecessors a job is given, and as which arguments.

It stands in the body of a job in a flow (see ``message``). Predecessors are known by the positions
of their edges, from 0; the results themselves are read when the job runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

Runs = tuple[tuple[int, int], ...]
"""Positions, as inclusive ranges in order."""


class Take(NamedTuple):
    """The value of the predecessor at ``first``; with ``size``, the list of so many from there."""

    first: int
    size: int | None = None


class Wiring(NamedTuple):
    """``args`` come before the job's own arguments, ``kwargs`` over its own. ``allowed``: the
    predecessors that may have failed; their exceptions are given as values. ``error``: the job is
    an error callback, and takes so much of what it is about: 3 arguments or 1.
    """

    args: tuple[Take, ...] = ()
    kwargs: dict[str, Take] = {}  # noqa: RUF012 - never written to; a NamedTuple default
    allowed: Runs = ()
    error: int = 0


def pack(wiring: Wiring) -> list[Any]:
    """Plain values, for msgpack."""
    return [wiring.args, wiring.kwargs, wiring.allowed, wiring.error]


def unpack(packed: Any) -> Wiring:
    """Raises TypeError or ValueError for what ``pack`` did not make."""
    args, kwargs, allowed, error = packed
    return Wiring(
        tuple(_take(take) for take in args),
        {str(name): _take(take) for name, take in kwargs.items()},
        tuple((int(first), int(last)) for first, last in allowed),
        int(error),
    )


def _take(packed: Any) -> Take:
    first, size = packed
    return Take(int(first), None if size is None else int(size))


def runs(positions: Iterable[int]) -> Runs:
    """``positions``, ascending, as ranges."""
    found: list[tuple[int, int]] = []
    for position in positions:
        if found and found[-1][1] == position - 1:
            found[-1] = (found[-1][0], position)
        else:
            found.append((position, position))
    return tuple(found)


def within(position: int, allowed: Runs) -> bool:
    return any(first <= position <= last for first, last in allowed)
