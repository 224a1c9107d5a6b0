"""What Redis, and the way to it, may do to workers under load: they go on by themselves, and run
every job once.

Leases last longer than any test. Nothing is waited out: a job whose lease got lost never ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from taskharbor.drivers.redis import scripts
from tests.proxy import Side, TcpProxy
from tests.scenarios.outages import LEASE, MOST_SECONDS, Customer, check_all_ran_once, shop_at
from tests.scenarios.worker import Worker
from tests.servers import RedisServer
from tests.waiting import wait_until

STOCK = 4
"""Jobs that a child has at most beside the one that it runs."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Of this test's own; what it has acknowledged, it still has after a kill."""
    with RedisServer(aof="always") as one:
        yield one


class Scene(NamedTuple):
    running: Worker
    customer: Customer

    def wait_for_more(self, number: int) -> None:
        """Jobs that start from here on."""
        enough = len(self.running.journal_entries("started")) + number
        self.running.wait_noted("started", count=enough)

    @contextmanager
    def until_noticed(self) -> Iterator[None]:
        """Do what the block does, and wait until a child has noticed."""
        known = len(self.running.events("store does not answer"))
        yield
        self.running.wait_event("store does not answer", count=known + 1)

    def check_it_goes_on(self, back_at: float) -> None:
        """``back_at``: when the server was there again. Says how long after that the last child
        began a job that it can't have had in stock."""
        children = [process.pid for process in self.running.children()]

        def begun() -> list[float]:
            runs = [run for run in self.running.journal_entries("started") if run["at"] > back_at]
            fresh = [[run["at"] for run in runs if run["pid"] == pid][STOCK:] for pid in children]
            return [times[0] for times in fresh] if all(fresh) else []

        waited = max(wait_until(begun, what="every child to go on")) - back_at
        print(f"at work again after {waited:.2f} s")
        assert waited < MOST_SECONDS


@contextmanager
def scene(url: str, directory: Path, *, ordered_at: str | None = None) -> Iterator[Scene]:
    """A worker at ``url`` with orders coming in, already at work. At the end every acknowledged
    job has run once, in the processes that were there at the beginning."""
    with (
        shop_at(ordered_at or url) as app,
        Worker(url, directory, prefetch_max=STOCK, **LEASE) as running,
    ):
        before = {process.pid for process in running.processes()}
        with Customer(app, running) as customer:
            one = Scene(running, customer)
            one.wait_for_more(20)
            yield one
        check_all_ran_once(running, app, customer.jobs)
        assert {process.pid for process in running.processes()} == before


def test_kills_with_an_append_only_file(server: RedisServer, tmp_path: Path) -> None:
    with scene(server.url, tmp_path) as shop:
        for _ in range(3):
            with shop.until_noticed():
                server.kill()
            server.start()
            shop.check_it_goes_on(time.time())
            shop.wait_for_more(20)


def test_connections_that_are_killed_again_and_again(server: RedisServer, tmp_path: Path) -> None:
    killed = 0
    with scene(server.url, tmp_path) as shop, server.client(reply_seconds=30) as operator:
        for _ in range(10):
            for kind in ("normal", "pubsub"):
                killed += operator.execute_command("CLIENT", "KILL", "TYPE", kind)
            killed_at = time.time()
            shop.wait_for_more(5)
        shop.check_it_goes_on(killed_at)
    assert killed >= 20


def test_a_pause_longer_than_the_timeout(server: RedisServer, tmp_path: Path) -> None:
    """What was sent in the pause is given up by its sender and applied when the pause ends."""
    url = f"{server.url}?timeout=1"
    with (
        scene(url, tmp_path, ordered_at=server.url) as shop,
        server.client(reply_seconds=60) as operator,
    ):
        with shop.until_noticed():
            operator.client_pause(6000)
        operator.ping()
        shop.check_it_goes_on(time.time())


def test_scripts_flushed_under_load(server: RedisServer, tmp_path: Path) -> None:
    # Nobody notices, unless the machine itself holds the server up.
    with scene(f"{server.url}?timeout=60", tmp_path) as shop:
        with server.client(reply_seconds=30) as operator:
            for _ in range(20):
                operator.script_flush()
                shop.wait_for_more(3)
            shop.check_it_goes_on(time.time())
        assert not shop.running.events("store does not answer")


def test_a_slow_way_that_is_cut_again_and_again(server: RedisServer, tmp_path: Path) -> None:
    """What was on its way when the connection was cut still arrives, a little later."""
    with TcpProxy.before(server.url) as proxy, scene(proxy.url, tmp_path) as shop:
        proxy.delay(0.1)
        cuts = 0
        # A connection that is idle when it is cut is replaced and nobody notices.
        while cuts < 4 or not shop.running.events("store does not answer"):
            shop.wait_for_more(5)
            proxy.cut()
            cuts += 1
        proxy.heal()
        shop.check_it_goes_on(time.time())


@pytest.mark.parametrize("side", ["client", "server"])
def test_connections_closed_in_one_direction(
    server: RedisServer, tmp_path: Path, side: Side
) -> None:
    with TcpProxy.before(server.url) as proxy, scene(proxy.url, tmp_path) as shop:
        for _ in range(4):
            proxy.half_close(side)
            closed_at = time.time()
            shop.wait_for_more(10)
        shop.check_it_goes_on(closed_at)


def test_a_way_that_is_closed(server: RedisServer, tmp_path: Path) -> None:
    with TcpProxy.before(server.url) as proxy, scene(proxy.url, tmp_path) as shop:
        for _ in range(2):
            with shop.until_noticed():
                proxy.refuse()
            proxy.heal()
            shop.check_it_goes_on(time.time())


def test_replies_lost_after_the_server_did_the_work(server: RedisServer, tmp_path: Path) -> None:
    """Of enqueues, and of exchanges that settled and reserved: repeated, they change nothing."""
    enqueue, exchange = (_hash(name) for name in ("enqueue", "exchange"))
    with TcpProxy.before(server.url) as proxy, scene(proxy.url, tmp_path) as shop:
        for request in (exchange, enqueue) * 3:
            lost = proxy.lose_next_reply(request)
            wait_until(lost.is_set, what="a reply to be lost")
            lost_at = time.time()
            shop.wait_for_more(10)
        shop.check_it_goes_on(lost_at)


def _hash(script: str) -> bytes:
    """By which the server is told to run it."""
    return scripts.load(script).by_hash.split(b"\r\n")[-2]
