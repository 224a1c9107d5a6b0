"""Flows of mixed shape, drawn by a seed, with what each comes to."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from taskharbor import group
from taskharbor.maintenance.leader import TERM_SECONDS
from tests.chaos.flow_tasks import (
    FAILURE,
    doomed,
    fan_out,
    flaky,
    fold,
    folded,
    never,
    number,
    shift,
    shift_anew,
    shift_async,
    tell_death,
    tell_nothing,
)

LATE_SECONDS = 1.5
"""What a late flow is given, and what its first job takes of it."""
OVERTIME = int(TERM_SECONDS) + 3
"""Jobs of a second each after that. When whoever leads is killed, flows are late for a term before
the next one cancels them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A flow, the number that it comes to, and of how many jobs it is, joins and those that a job
    adds at run time left out."""

    canvas: Any
    value: int
    jobs: int


def draw_flow(rng: Random, jobs: int) -> Piece:
    """One chord of ``jobs`` jobs at least, and a few more."""
    members: list[Piece] = []
    while sum(member.jobs for member in members) + 1 < jobs:
        members.append(_piece(rng, depth=3))
    return _chord(members)


def draw_failing() -> Any:
    """A flow that can only fail, in which one error callback is due and two jobs are never to
    run."""
    dies = (number.s(1) | doomed.si() | never.s()).on_error(tell_death.s())
    return group(dies, number.s(2)) | never.s()


def draw_late() -> Any:
    """A flow that takes longer than it is given."""
    slow = number.s(1, LATE_SECONDS) | shift.s(2)
    for value in range(OVERTIME):
        slow |= number.si(value, 1.0)
    return group(slow, *(number.s(value, 0.2) for value in range(10))) | never.s()


def _piece(rng: Random, depth: int) -> Piece:
    draw = rng.choice(_INNER if depth else _LEAVES)
    return draw(rng, depth)


def _number(rng: Random, depth: int) -> Piece:
    value = rng.randrange(10**6)
    return Piece(number.s(value, rng.choice((0.0, 0.0, 0.02, 0.2))), value, 1)


def _flaky(rng: Random, depth: int) -> Piece:
    value = rng.randrange(10**6)
    return Piece(flaky.s(value), value, 1)


def _tolerated(rng: Random, depth: int) -> Piece:
    """A failure that is allowed; its error callback runs all the same."""
    return Piece(doomed.s().allow_failure().on_error(tell_death.s()), FAILURE, 2)


def _chain(rng: Random, depth: int) -> Piece:
    # In a chord of its own: an allowed failure reaches `fold`, not `shift`.
    first, by = _chord([_piece(rng, depth - 1)]), rng.randrange(10**6)
    then = rng.choice((shift, shift_async, shift_anew))
    return Piece(first.canvas | then.s(by), folded([first.value, by]), first.jobs + 1)


def _dynamic(rng: Random, depth: int) -> Piece:
    value, count = rng.randrange(10**6), rng.randrange(1, 5)
    canvas = number.s(value) | fan_out.s(count)
    return Piece(canvas, folded(range(value, value + count)), 2)


def _inner_chord(rng: Random, depth: int) -> Piece:
    return _chord([_piece(rng, depth - 1) for _ in range(rng.randrange(1, 6))])


def _two_groups(rng: Random, depth: int) -> Piece:
    """A group after a group: each of the second has the values of all of the first."""
    values = [rng.randrange(10**6) for _ in range(rng.randrange(2, 5))]
    canvas = group(number.s(value) for value in values) | group(fold.s(), fold.s()) | fold.s()
    return Piece(canvas, folded([folded(values)] * 2), len(values) + 3)


def _watched(rng: Random, depth: int) -> Piece:
    """An error callback that has nothing to say."""
    inner = _chord([rng.choice((_number, _flaky))(rng, 0) for _ in range(3)])
    return Piece(inner.canvas.on_error(tell_nothing.s()), inner.value, inner.jobs + 1)


def _chord(members: list[Piece]) -> Piece:
    canvas = group(member.canvas for member in members) | fold.s()
    value = folded(member.value for member in members)
    return Piece(canvas, value, sum(member.jobs for member in members) + 1)


_LEAVES = (_number, _number, _flaky, _tolerated, _dynamic)
_INNER = (*_LEAVES, _chain, _chain, _inner_chord, _two_groups, _watched)
