"""What a storm is asked to do: jobs of all kinds, each with what may become of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from threading import Event
from typing import Any

from taskharbor import defaults
from taskharbor.message import BODY_VERSION
from tests.chaos.checker import Chord, Expect, Promise
from tests.chaos.tasks import ENDLESS

QUEUES = ("mail", "default")
RACERS = 4
"""How many ask for a job under one key at the same moment."""
LEASE_SECONDS = 2.0
GIL_SECONDS = 1.5 * LEASE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One job to be enqueued ``at`` seconds after the beginning. ``body``: stored as it is, past
    the app. ``cancel_after``: seconds from the enqueue until somebody changes their mind.
    ``members``: the job is the finalizer of a chord of these, and all go in as one flow.
    ``after``: not before this is set, whatever ``at`` says."""

    at: float
    promise: Promise
    task: str
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    cancel_after: float | None = None
    members: tuple[Order, ...] = ()
    after: Event | None = None

    @property
    def promises(self) -> list[Promise]:
        return [self.promise, *(member.promise for member in self.members)]

    @property
    def chord(self) -> Chord:
        """To be asked only of a finalizer."""
        members = tuple(member.promise.id for member in self.members)
        return Chord(finalizer=self.promise.id, members=members)


def make_orders(rng: Random, *, seconds: float, count: int) -> list[Order]:
    """Some ``count`` jobs spread over ``seconds``, by the time of their enqueue."""
    orders: list[Order] = []
    for number in range(count):
        at = seconds * rng.random()
        (kind,) = rng.choices(list(_LINES), list(_LINES.values()))
        orders += kind(rng, number, at)
    return sorted(orders, key=lambda order: order.at)


_WORK_SECONDS = {0.0: 3, 0.01: 3, 0.05: 3, 0.3: 3, 1.0: 2, 2 * LEASE_SECONDS: 1}
"""How long, and how often beside the others. Few are long: the calm has to wait for them."""


def _works(rng: Random, number: int, at: float) -> Iterator[Order]:
    (seconds,) = rng.choices(list(_WORK_SECONDS), list(_WORK_SECONDS.values()))
    task = rng.choice(("work", "work", "work_async"))
    yield _order(rng, number, at, task, (seconds,))


def _quick(rng: Random, number: int, at: float) -> Iterator[Order]:
    yield _order(rng, number, at, "quick")


def _later(rng: Random, number: int, at: float) -> Iterator[Order]:
    yield _order(rng, number, at, "quick", countdown=3 * rng.random())


def _flaky(rng: Random, number: int, at: float) -> Iterator[Order]:
    yield _order(rng, number, at, "flaky", (rng.choice((1, 2, 5)),))


def _few(rng: Random, number: int, at: float) -> Iterator[Order]:
    task, most = rng.choice((("once", 1), ("few", 3)))
    seconds = rng.choice((0.0, 0.05, 1.0))
    yield _order(rng, number, at, task, (seconds,), Expect.SUCCEEDS_OR_DIES, most)


def _cancelled(rng: Random, number: int, at: float) -> Iterator[Order]:
    yield _order(rng, number, at, "work", (1.0,), Expect.ANY, cancel_after=2 * rng.random())


def _poison(rng: Random, number: int, at: float) -> Iterator[Order]:
    task, args, most = rng.choice(
        (
            ("leave", (rng.choice((0, 1, 80, 82)),), 2),
            ("crash", (), 2),
            ("killed", (), 2),
            ("overrun", (), 1),
            ("blow_up", (600,), 2),
        )
    )
    yield _order(rng, number, at, task, args, Expect.DIES, most)


def _gil(rng: Random, number: int, at: float) -> Iterator[Order]:
    yield _order(rng, number, at, "hold_gil", (GIL_SECONDS,))


def _new(rng: Random, number: int, at: float) -> Iterator[Order]:
    yield _order(rng, number, at, "brand_new")


def _heavy(rng: Random, number: int, at: float) -> Iterator[Order]:
    payload = bytes(900_000)
    too_much = rng.random() < 0.3
    yield _order(
        rng,
        number,
        at,
        "heavy",
        (payload, defaults.MAX_RESULT_BYTES if too_much else 0),
        Expect.DIES if too_much else Expect.SUCCEEDS,
        writes=False,
    )


def _bombs(rng: Random, number: int, at: float) -> Iterator[Order]:
    """Bodies that nobody could have written: arrays in arrays without end, lengths that lie."""
    version = bytes([BODY_VERSION])
    body = rng.choice(
        (b"", version + b"\x91" * 100_000, version + b"\x94\xdd\xff\xff\xff\xff", rng.randbytes(64))
    )
    # A first byte that says "newer version" would rightly be waited for.
    body = b"\xff" + body if body[:1] != version else body
    yield _order(
        rng, number, at, "quick", (), Expect.DIES, defaults.MAX_ATTEMPTS, body=body, writes=False
    )


def _keyed(rng: Random, number: int, at: float) -> Iterator[Order]:
    """Several ask at once; whoever comes first has the job."""
    queue = rng.choice(QUEUES)
    for racer in range(RACERS):
        promise = Promise(
            id=f"keyed-{number}-{racer}",
            expect=Expect.SUCCEEDS,
            max_attempts=ENDLESS,
            key=f"key-{number}",
        )
        options = {"queue": queue, "idempotency_key": f"key-{number}"}
        yield Order(at=at, promise=promise, task="quick", options=options)


def make_chords(rng: Random, *, seconds: float, count: int) -> list[Order]:
    """Flows, for stores that can keep them; in every third a member can only die."""
    return [_chord(rng, number, seconds * rng.random()) for number in range(count)]


def _chord(rng: Random, number: int, at: float) -> Order:
    members = []
    for member in range(rng.choice((2, 3, 5))):
        task, args = rng.choice((("quick", ()), ("work", (0.3,)), ("flaky", (1,))))
        members.append(_order(rng, number * 10 + member, at, task, args, kind="member"))
    finalizer = Expect.SUCCEEDS
    if number % 3 == 2:
        members.append(
            _order(rng, number * 10 + 9, at, "leave", (1,), Expect.DIES, 2, kind="member")
        )
        finalizer = Expect.IS_SKIPPED
    last = _order(rng, number, at, "quick", (), finalizer, kind="finalizer")
    return replace(last, members=tuple(members))


def _order(
    rng: Random,
    number: int,
    at: float,
    task: str,
    args: tuple[Any, ...] = (),
    expect: Expect = Expect.SUCCEEDS,
    max_attempts: int = ENDLESS,
    *,
    body: bytes | None = None,
    writes: bool = True,
    cancel_after: float | None = None,
    kind: str = "",
    **options: Any,
) -> Order:
    kind = kind or (task if body is None else "bomb")
    return Order(
        at=at,
        promise=Promise(
            id=f"{kind}-{number}", expect=expect, max_attempts=max_attempts, writes=writes
        ),
        task=task,
        args=args,
        options={"queue": rng.choice(QUEUES), "priority": rng.choice((0, 0, 0, 5, -5)), **options},
        body=body,
        cancel_after=cancel_after,
    )


_LINES = {
    _works: 30,
    _quick: 30,
    _later: 8,
    _flaky: 8,
    _few: 10,
    _cancelled: 5,
    _poison: 5,
    _keyed: 5,
    _new: 4,
    _gil: 1,
    _heavy: 2,
    _bombs: 1,
}
"""How often each kind comes, relative to the others."""
