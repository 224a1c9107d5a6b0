"""One racing process. Run as a script, so that it starts fast: it imports neither pytest nor the
suite.

It reads commands from its standard input, one JSON object a line, and answers each with two lines:
``"ready"`` when it is connected and at the starting line, and after the line ``go`` what came of
it. It ends with its input, so it never outlives the test run.

    {"race": "drain", "url": "sqlite:///x.db", "number": 3, ...arguments of the function}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import Random
from typing import Any, cast

from taskharbor.drivers import registry
from taskharbor.drivers.base import Exchange, InspectableDriver, Want
from taskharbor.drivers.flows import FlowDriver
from taskharbor.flow.plan import Edge, Flow, Node, Part
from taskharbor.lease import Guard, Reservation
from taskharbor.message import Call, Message, write_body
from taskharbor.settlement import Settlement
from taskharbor.states import State

QUEUE = "default"
LEASE = 600.0
_BODY = write_body(Call(b"payload"))


def enqueue_one_key(
    driver: InspectableDriver, number: int, *, racers: int, threads: int
) -> list[tuple[str, bool]]:
    """``racers`` enqueues of a job of their own under one key; each with its answer."""

    def one(racer: int) -> tuple[str, bool]:
        job_id = driver.new_job_id("the-key")
        message = Message(id=job_id, task="demo.task", body=_BODY, idempotency_key="the-key")
        answer = driver.enqueue([message])[0]
        return answer.id, answer.created

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(racers)))


def drain(driver: InspectableDriver, number: int, *, limit: int) -> list[tuple[str, int]]:
    """Reserve and settle until nothing is left; every lease that was given here."""
    taken: list[tuple[str, int]] = []
    done: list[Settlement] = []
    while True:
        got = driver.exchange(f"racer-{number}", done, Want((QUEUE,), limit, LEASE))
        taken += [(lease.id, lease.fence) for lease in got.reserved]
        done = [Settlement.succeed(lease.id, lease.fence, b"r") for lease in got.reserved]
        if not done and not got.more:
            return taken


def acknowledge(driver: InspectableDriver, number: int, *, jobs: int) -> list[str]:
    """Enqueue jobs, settle half of them and reserve one more; the ids, once the store has
    acknowledged it all."""
    job_ids = [f"a{place}" for place in range(jobs)]
    driver.enqueue([Message(id=job_id, task="demo.task", body=_BODY) for job_id in job_ids])
    leases: list[Reservation] = []
    while len(leases) < jobs // 2:
        want = Want((QUEUE,), jobs // 2 - len(leases), LEASE)
        leases += driver.exchange("racer", (), want).reserved
    done = [Settlement.succeed(lease.id, lease.fence, b"r") for lease in leases]
    driver.exchange("racer", done, Want((QUEUE,), 1, LEASE))
    return job_ids


def settle_all(
    driver: InspectableDriver, number: int, *, leases: list[tuple[str, int]]
) -> list[str]:
    """Settle these leases, each alone, in an order of our own; the verdicts in theirs."""
    order = list(range(len(leases)))
    Random(number).shuffle(order)
    verdicts = {}
    for place in order:
        job_id, fence = leases[place]
        done = Settlement.succeed(job_id, fence, b"racer-%d" % number)
        verdicts[place] = driver.exchange(f"racer-{number}", [done]).settled[0].verdict.value
    return [verdicts[place] for place in range(len(leases))]


def reserve_until_retired(
    driver: InspectableDriver, number: int, *, holder: str, retire_after: int
) -> dict[str, Any]:
    """All race as one holder, as the connections of one child do. Number 0 retires it after a few
    reserves of its own and says what it was told that the holder holds."""
    taken: list[int] = []
    while True:
        if number == 0 and len(taken) >= retire_after:
            told = [lease.fence for lease in driver.retire(holder)]
            return {"taken": taken, "told": told}
        got = driver.exchange(holder, (), Want((QUEUE,), 1, LEASE))
        taken += [lease.fence for lease in got.reserved]
        if got.retired or (not got.reserved and not got.more):
            return {"taken": taken, "told": None}


def reap(driver: InspectableDriver, number: int, *, limit: int) -> int:
    """Hand back whatever has expired until nothing has; how many were handed back here."""
    reaped = 0
    while found := driver.expired(limit):
        lost = [
            Settlement.release(lease.id, lease.fence, loss=True, guard=Guard.EXPIRED)
            for lease in found
        ]
        settled = driver.exchange(f"reaper-{number}", lost).settled
        reaped += sum(one.verdict == "applied" for one in settled)
    return reaped


def promote(driver: InspectableDriver, number: int, *, limit: int) -> int:
    """How many jobs were promoted here."""
    moved = 0
    while True:
        promoted = driver.promote(limit)
        moved += promoted.moved
        if not promoted.more:
            return moved


def lead(driver: InspectableDriver, number: int, *, name: str) -> int | None:
    """The number of the term that was won here."""
    term = driver.lead(name, f"racer-{number}", LEASE)
    return None if term is None else term.number


def storm(
    driver: InspectableDriver, number: int, *, jobs: int, steps: int
) -> dict[str, list[tuple[str, int]]]:
    """Random operations on a few jobs; the leases that were given and ended here."""
    rng = Random(number)
    holder = f"racer-{number}"
    given: list[tuple[str, int]] = []
    ended: list[tuple[str, int]] = []
    held: list[Reservation] = []
    for _ in range(steps):
        job_id = f"a{rng.randrange(jobs)}"
        match rng.randrange(8):
            case 0 | 1:
                driver.enqueue([Message(id=job_id, task="demo.task", body=_BODY)])
            case 2:
                driver.cancel([job_id])
            case 3:
                driver.requeue([job_id], states=frozenset(State))
            case 4:
                driver.delete([job_id])
            case _:
                endings = [_some_ending(rng, lease) for lease in held]
                got = driver.exchange(holder, endings, Want((QUEUE,), 2, LEASE))
                ended += _applied(endings, got)
                given += [(lease.id, lease.fence) for lease in got.reserved]
                held = got.reserved
    endings = [Settlement.succeed(lease.id, lease.fence, b"r") for lease in held]
    ended += _applied(endings, driver.exchange(holder, endings))
    return {"given": given, "ended": ended}


def _some_ending(rng: Random, lease: Reservation) -> Settlement:
    match rng.randrange(4):
        case 0:
            return Settlement.succeed(lease.id, lease.fence, b"r")
        case 1:
            return Settlement.retry(lease.id, lease.fence, delay=0, error=b"e")
        case 2:
            return Settlement.die(lease.id, lease.fence, error=b"e")
        case _:
            return Settlement.release(lease.id, lease.fence)


def _applied(endings: list[Settlement], got: Exchange) -> list[tuple[str, int]]:
    verdicts = zip(endings, got.settled, strict=True)
    return [(one.job_id, one.fence) for one, settled in verdicts if settled.verdict == "applied"]


def store_flows(driver: InspectableDriver, number: int, *, size: int) -> None:
    """Store fans without sealing them, part by part, one after the other, until killed."""
    flows = cast("FlowDriver", driver)
    for attempt in count():
        name = f"flow-{number}-{attempt}"
        *parts, _ = fan(name, size, part=50, new_id=flows.new_id_beside)
        for part in parts:
            flows.enqueue_flow(part)


def fan(
    flow_id: str, size: int, *, part: int, new_id: Callable[[str], str] | None = None
) -> Iterator[Part]:
    """A flow of a root, ``size`` members and the callback of them all, in parts of ``part``
    nodes or edges; the last one only seals it. ``new_id``: of a job of this flow; without it, they
    are ``flow_id-root``, ``flow_id-m0`` ... ``flow_id-end``."""
    names = ["root", *(f"m{place}" for place in range(size)), "end"]
    waits = [0, *(1 for _ in range(size)), size]
    job_ids = [new_id(flow_id) if new_id else f"{flow_id}-{name}" for name in names]
    nodes = [
        Node(Message(id=job_id, task="demo.task", body=_BODY), waits_for)
        for job_id, waits_for in zip(job_ids, waits, strict=True)
    ]
    root, *members, end = (node.message.id for node in nodes)
    edges = [Edge(root, member, 0) for member in members]
    edges += [Edge(member, end, place) for place, member in enumerate(members)]
    flow = Flow(flow_id, len(nodes), len(edges))
    for first in range(0, len(nodes), part):
        yield Part(flow, tuple(nodes[first : first + part]), first)
    for first in range(0, len(edges), part):
        yield Part(flow, edges=tuple(edges[first : first + part]))
    yield Part(flow, seal=True)


RACES: dict[str, Callable[..., Any]] = {
    race.__name__: race
    for race in (
        enqueue_one_key,
        drain,
        acknowledge,
        settle_all,
        reserve_until_retired,
        reap,
        promote,
        lead,
        storm,
        store_flows,
    )
}


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        race = RACES[command.pop("race")]
        driver = registry.connect(command.pop("url"))
        try:
            # A first call opens what is opened when first needed.
            driver.results(["nobody"])
            _say("ready")
            if sys.stdin.readline() != "go\n":
                return
            _say(race(driver, **command))
        finally:
            driver.close()


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
