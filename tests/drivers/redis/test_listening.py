"""Wake-ups: the right number of listeners, soon, without asking all the time."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import redis

from taskharbor import defaults
from taskharbor.conformance.flow_support import quiesce, store
from taskharbor.conformance.rules.waiting import check_a_hint_comes
from taskharbor.conformance.support import apply, get, put, take_one
from taskharbor.drivers.redis import RedisDriver
from taskharbor.drivers.redis import listening as listening_module
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.redis.conftest import Connect
from tests.servers.redis import RedisServer
from tests.waiting import best_of, wait_until

LISTENERS = 64
LONG = 120.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


def listening(client: redis.Redis) -> int:
    """How many stand in the line of the default queue."""
    keys = list(client.scan_iter("*}:A:default"))
    return int(client.zcard(keys[0])) if keys else 0


def awaited(client: redis.Redis) -> bool:
    return bool(list(client.scan_iter("*}:W")))


@pytest.fixture
def only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listeners that do not look again by themselves: one that does just then, before it reads that
    it was told, stands in line once more."""
    monkeypatch.setattr(listening_module, "LOOK_SECONDS", LONG)
    monkeypatch.setattr(listening_module, "LISTED_MS", int(LONG * 1000))


def listen(pool: ThreadPoolExecutor, drivers: list[RedisDriver]) -> list[Future[None]]:
    return [pool.submit(driver.wait, ["default"], LONG) for driver in drivers]


@pytest.mark.usefixtures("only_told")
def test_a_job_wakes_one_listener_and_three_jobs_three(
    connected: Connect, server: RedisServer, client: redis.Redis
) -> None:
    drivers = [connected(server.url) for _ in range(LISTENERS)]
    with ThreadPoolExecutor(LISTENERS) as pool:
        listen(pool, drivers)
        wait_until(lambda: listening(client) == LISTENERS, seconds=30, what="all to listen")
        put(drivers[0], "a")
        assert listening(client) == LISTENERS - 1
        put(drivers[0], "b", "c", "d")
        assert listening(client) == LISTENERS - 4
        put(drivers[0], *(f"rest{number}" for number in range(4, LISTENERS)))


@pytest.mark.usefixtures("only_told")
def test_a_listener_that_died_takes_nobodys_wake_up(
    connected: Connect, server: RedisServer, client: redis.Redis
) -> None:
    dead, alive = connected(server.url), connected(server.url)
    dead.wait(["default"], 0.05)
    wait_until(lambda: listening(client) == 1)
    dead.close()
    with ThreadPoolExecutor(1) as pool:
        (wait,) = listen(pool, [alive])
        wait_until(lambda: listening(client) == 2)
        put(connected(server.url), "a")
        assert listening(client) == 0
        wait.result(LONG)


def test_a_listener_of_another_queue_or_of_a_paused_one_sleeps_on(
    connected: Connect, server: RedisServer
) -> None:
    driver = connected(server.url)
    driver.pause("default")
    put(driver, "a")
    began = time.monotonic()
    driver.wait(["default", "other"], 0.2)
    assert time.monotonic() - began >= 0.2
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(driver.wait, ["default"], LONG)
        driver.resume("default")
        wait.result(LONG)


def test_an_idle_listener_asks_no_more_than_once_a_second(
    connected: Connect, server: RedisServer, client: redis.Redis
) -> None:
    driver = connected(server.url)
    driver.wait(["default"], 0.05)
    client.config_resetstat()
    began = time.monotonic()
    while time.monotonic() - began < 2.0:
        driver.wait(["default"], 0.1)
    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert calls <= 1 + (time.monotonic() - began)


@contextmanager
def running(*arguments: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-m", "taskharbor", *arguments]) as process:
        try:
            yield
        finally:
            process.terminate()


def test_an_idle_maintenance_looks_at_each_duty_no_more_than_once_a_second(
    connected: Connect, server: RedisServer, client: redis.Redis
) -> None:
    driver = connected(server.url)
    with running("maintenance", "--url", driver.url):
        # Told of a job, it is up and listens.
        wait_until(lambda: bool(list(client.scan_iter("*}:A:"))), what="maintenance to listen")
        put(driver, "a", delay=0.3)
        wait_until(lambda: get(driver, "a").state is State.READY, what="the job to be due")
        client.config_resetstat()
        began = time.monotonic()
        time.sleep(4.0)
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        took = time.monotonic() - began
    # Each second: promote, expired, listen; in five: lead three times, prune once.
    assert calls <= 5 + 3.8 * took


@pytest.mark.parametrize("what", ["an expiry", "a rest"])
def test_who_waits_for_the_schedule_hears_of_flows(
    connected: Connect, server: RedisServer, what: str
) -> None:
    driver = connected(server.url)
    flows: list[str] = []

    def happen() -> None:
        flows.append(driver.new_job_id(None))
        # The many are more than one call may move.
        size = 1 if what == "an expiry" else 2 * defaults.FLOW_PAGE
        nodes = [driver.new_id_beside(flows[-1]) for _ in range(size)]
        store(driver, *nodes, flow_id=flows[-1], expires_in=0.5 if size == 1 else None)

    def undo() -> None:
        driver.cancel_flow(flows[-1])
        quiesce(driver)
        driver.delete_flow(flows[-1])

    check_a_hint_comes(driver, happen, undo)


def test_a_waiter_for_a_result_asks_twice_and_is_told(
    connected: Connect,
    server: RedisServer,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening_module, "RECHECK_SECONDS", LONG)
    driver, worker = connected(server.url), connected(server.url)
    put(driver, "a")
    lease = take_one(worker)
    client.config_resetstat()
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(driver.wait_results, ["a"], LONG)
        wait_until(lambda: awaited(client), what="the waiter to be known")
        apply(worker, Settlement.succeed("a", lease.fence, b"r"))
        (outcome,) = wait.result(LONG)
    assert outcome is not None
    assert outcome.state is State.SUCCEEDED
    # One look, one more after listening, the settle, and the look after the news.
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 4
    assert not awaited(client)


def test_wake_ups_come_within_milliseconds(
    connected: Connect, server: RedisServer, client: redis.Redis
) -> None:
    driver, worker = connected(server.url), connected(server.url)

    def delay() -> float:
        """Seconds, the median of 10: a poll may come at the right moment once, not so often."""
        delays: list[float] = []
        for _ in range(10):
            wait = pool.submit(worker.wait, ["default"], LONG)
            wait_until(lambda: listening(client) == 1)
            sent = time.perf_counter()
            put(driver, "a")
            wait.result(LONG)
            delays.append(time.perf_counter() - sent)
            apply(worker, Settlement.succeed("a", take_one(worker).fence, None))
            driver.delete(["a"])
        return statistics.median(delays)

    with ThreadPoolExecutor(1) as pool:
        # On a quiet machine half a millisecond; a poll would be hundreds.
        assert best_of(delay, below=0.05, tries=10) < 0.05
