"""Flows in plpgsql against the memory driver, which reads like ``flow.progress``."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from taskharbor import defaults
from taskharbor.clock import ManualClock
from taskharbor.drivers import memory
from taskharbor.drivers.base import Want
from taskharbor.drivers.flows import FlowDriver
from taskharbor.drivers.postgres import PostgresDriver, connect
from taskharbor.flow.plan import Edge, EdgeKind, Flow, Node, Part
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.postgres.support import a_namespace, job
from tests.servers.postgres import PostgresServer

FLOW = "flow"
NODES = 8
STEPS = 25


class Pair:
    """Two stores that are told the same; what they answer is compared."""

    def __init__(self, one: FlowDriver, other: FlowDriver, clock: ManualClock) -> None:
        self.both = (one, other)
        self.clock = clock
        self.fences: dict[str, tuple[int, int]] = {}

    def reserve(self, limit: int) -> None:
        found = [self._reserve(driver, limit) for driver in self.both]
        assert list(found[0]) == list(found[1])
        self.fences |= {job_id: (fence, found[1][job_id]) for job_id, fence in found[0].items()}

    def _reserve(self, driver: FlowDriver, limit: int) -> dict[str, int]:
        taken: dict[str, int] = {}
        more = True
        while more and len(taken) < limit:
            want = Want(("default",), limit - len(taken), 1000.0)
            got = driver.exchange("holder", (), want)
            taken |= {lease.id: lease.fence for lease in got.reserved}
            more = got.more
        return taken

    def settle(self, ends: dict[str, str]) -> None:
        answers = []
        for which, driver in enumerate(self.both):
            settlements = [_end(name, self.fences[name][which], how) for name, how in ends.items()]
            answers.append(driver.exchange("holder", settlements).settled)
        assert answers[0] == answers[1]

    def same(self, call: str, *arguments: object, **options: object) -> None:
        answers = [getattr(driver, call)(*arguments, **options) for driver in self.both]
        assert answers[0] == answers[1], call

    def quiesce(self) -> None:
        for driver in self.both:
            while driver.promote(1000).more:
                pass

    def compare(self) -> None:
        self.same("flow_nodes", FLOW)
        self.same("flow", FLOW)
        self.same("results", [f"n{number}" for number in range(NODES)])

    def compare_jobs(self) -> None:
        assert _attempts(self.both[0]) == _attempts(self.both[1])


def _attempts(driver: FlowDriver) -> list[tuple[object, ...]]:
    jobs = [driver.get(f"n{number}") for number in range(NODES)]
    return [
        (one.attempts, one.losses, one.finished_at, one.expires_at, len(one.history))
        for one in jobs
        if one is not None
    ]


def _end(name: str, fence: int, how: str) -> Settlement:
    match how:
        case "die":
            return Settlement.die(name, fence, error=b"error")
        case "cancel":
            return Settlement.cancel(name, fence)
        case "retry":
            return Settlement.retry(name, fence, delay=0.0, error=b"again")
        case _:
            return Settlement.succeed(name, fence, b"result")


def a_flow(rng: random.Random) -> Part:
    errbacks = {number for number in range(1, NODES) if rng.random() < 0.2}
    edges: list[Edge] = []
    waits = dict.fromkeys(range(NODES), 0)
    for target in range(1, NODES):
        for source in rng.sample(range(target), min(target, rng.randrange(4))):
            kinds = (EdgeKind.SUCCESS, EdgeKind.SUCCESS, EdgeKind.END)
            kind = EdgeKind.DEATH if target in errbacks else rng.choice(kinds)
            edges.append(Edge(f"n{source}", f"n{target}", waits[target], kind))
            waits[target] += 1
    nodes = [
        Node(
            job(f"n{number}", delay=rng.choice((0.0, 0.0, 0.0, 5.0))),
            waits[number],
            number in errbacks and waits[number] > 0,
            rng.random() < 0.3,
        )
        for number in range(NODES)
    ]
    return Part(Flow(FLOW, NODES, len(edges)), tuple(nodes), 0, tuple(edges), True)


@pytest.fixture(scope="module")
def namespace(postgres_server: PostgresServer) -> str:
    url = f"{postgres_server.url}?namespace={a_namespace()}"
    driver = connect(url)
    driver.migrate()
    driver.close()
    return url


@pytest.fixture
def pair(namespace: str) -> Iterator[Pair]:
    clock = ManualClock(1000.0)
    reference = memory.connect(f"memory://{a_namespace()}", clock=clock)
    driver = connect(namespace, clock=clock)
    yield Pair(reference, driver, clock)
    _clear(driver)
    driver.close()
    reference.close()


@pytest.mark.parametrize("seed", range(8))
def test_random_flows_move_as_in_the_reference(pair: Pair, seed: int) -> None:
    rng = random.Random(seed)
    pair.same("enqueue_flow", a_flow(rng))
    pair.quiesce()
    pair.compare()
    for _ in range(STEPS):
        _one_step(pair, rng)
        pair.quiesce()
        pair.compare()
    pair.compare_jobs()


def _one_step(pair: Pair, rng: random.Random) -> None:
    name = f"n{rng.randrange(NODES)}"
    match rng.randrange(10):
        case 0 | 1 | 2:
            pair.reserve(rng.randrange(1, 4))
        case 3 | 4 | 5 | 6:
            chosen = rng.sample(sorted(pair.fences), min(len(pair.fences), rng.randrange(1, 4)))
            pair.settle(
                {
                    one: rng.choice(("succeed", "succeed", "die", "cancel", "retry"))
                    for one in chosen
                }
            )
        case 7:
            pair.same("requeue", [name, "n0"], states=frozenset(State))
        case 8:
            call, what = rng.choice((("cancel", [name]), ("cancel_flow", FLOW), ("cancel", ["n1"])))
            pair.same(call, what)
        case _:
            pair.clock.advance(rng.choice((1.0, 5.0)))


def _clear(driver: PostgresDriver) -> None:
    driver.cancel_flow(FLOW)
    for number in range(NODES):
        found = driver.get(f"n{number}")
        if found is not None and found.state is State.RUNNING:
            driver.exchange("", [Settlement.succeed(found.id, found.fence or 0, None)])
    while driver.promote(1000).more:
        pass
    driver.delete_flow(FLOW)
    while driver.prune(1000):
        pass
    assert driver.flow(FLOW) is None
    assert sum(sum(queue.counts.values()) for queue in driver.queues()) == 0


def test_a_page_is_as_large_as_the_contract_says(namespace: str) -> None:
    driver = connect(namespace)
    page = f"SELECT {driver._store.address.schema}.flow_page()".encode()
    with driver._store.connections.lend() as connection:
        assert connection.execute(page).fetchone() == (defaults.FLOW_PAGE,)
    driver.close()


def test_a_job_with_many_successors_is_dropped_page_by_page(namespace: str) -> None:
    driver = connect(namespace)
    schema = driver._store.address.schema
    count = 2000
    root, *others = (f"many-{number}" for number in range(count + 1))
    nodes = (Node(job(root), 0), *(Node(job(other), 1) for other in others))
    edges = tuple(Edge(root, other, 0, EdgeKind.SUCCESS) for other in others)
    driver.enqueue_flow(Part(Flow("many", count + 1, count), nodes, 0, edges, True))
    driver.cancel_flow("many")
    while driver.promote(1000).more:
        pass
    driver.delete_flow("many")

    def edges_left() -> int:
        with driver._store.connections.lend() as connection:
            row = connection.execute(f"SELECT count(*) FROM {schema}.edges".encode()).fetchone()
        assert row is not None
        return int(row[0])

    left = [edges_left()]
    while driver.prune(10):
        left.append(edges_left())
    assert max(before - after for before, after in pairwise(left)) <= defaults.FLOW_PAGE + 50
    assert (left[0], left[-1], driver.flow("many")) == (count, 0, None)
    driver.close()
