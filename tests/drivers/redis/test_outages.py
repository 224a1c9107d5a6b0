"""Servers that die, hang, forget and cut connections: what was acknowledged stays, once."""

import threading
from collections.abc import Iterator

import pytest

from taskharbor.conformance.support import apply, job, put, take, take_one
from taskharbor.drivers.base import CancelVerdict, DeleteVerdict, Renewal, Want
from taskharbor.drivers.redis import RedisDriver
from taskharbor.errors import (
    ConfigurationError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from taskharbor.lease import Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.redis.conftest import Connect
from tests.proxy import TcpProxy
from tests.servers.redis import RedisServer, is_synced
from tests.waiting import wait_until

WANT = Want(("default",), 16, 600.0)


@pytest.fixture
def proxy(redis_url: str) -> Iterator[TcpProxy]:
    with TcpProxy.before(redis_url) as proxy:
        yield proxy


def test_a_lost_enqueue_reply_is_repeated_without_doubling(
    connected: Connect, proxy: TcpProxy
) -> None:
    driver = connected(proxy.url)
    put(driver, "first")
    put(driver, "second", "third")
    for batch in (["a"], ["b", "c"]):
        lost = proxy.lose_next_reply(b"EVALSHA")
        with pytest.raises(StoreUnavailable):
            put(driver, *batch)
        assert lost.wait(90)
        repeated = put(driver, *batch)
        assert [(one.created, one.same_request) for one in repeated] == [(False, True)] * len(batch)
    assert [lease.id for lease in take(driver, 9)] == ["first", "second", "third", "a", "b", "c"]


def test_a_lost_settle_reply_is_repeated_and_hears_already(
    connected: Connect, proxy: TcpProxy
) -> None:
    driver = connected(proxy.url)
    put(driver, "a", "b")
    done = [Settlement.succeed(lease.id, lease.fence, b"r") for lease in take(driver, 2)]
    lost = proxy.lose_next_reply(b"EVALSHA")
    with pytest.raises(StoreUnavailable):
        driver.exchange("h", done)
    assert lost.wait(90)
    verdicts = [one.verdict for one in driver.exchange("h", done).settled]
    assert verdicts == [Verdict.ALREADY, Verdict.ALREADY]
    assert driver.queues()[0].counts[State.SUCCEEDED] == 2


def test_a_lost_reservation_is_found_by_its_holder(connected: Connect, proxy: TcpProxy) -> None:
    driver = connected(proxy.url)
    put(driver, "a", "b", "c")
    driver.exchange("h", ())  # else the reply that is lost may say that the script is unknown
    lost = proxy.lose_next_reply(b"EVALSHA")
    with pytest.raises(StoreUnavailable):
        driver.exchange("h", (), WANT)
    assert lost.wait(90)
    held = driver.held("h")
    assert sorted(lease.id for lease in held) == ["a", "b", "c"]
    assert driver.exchange("other", (), WANT).reserved == []
    apply(driver, *(Settlement.succeed(lease.id, lease.fence, None) for lease in held))


def test_a_request_that_never_arrived_changed_nothing(connected: Connect, proxy: TcpProxy) -> None:
    driver = connected(proxy.url)
    put(driver, "a")
    lost = proxy.lose_next_request(b"EVALSHA")
    with pytest.raises(StoreUnavailable):
        put(driver, "b")
    assert lost.wait(90)
    assert [answer.created for answer in put(driver, "b")] == [True]


def test_a_half_open_connection_is_noticed_within_the_timeout(
    connected: Connect, proxy: TcpProxy
) -> None:
    driver = connected(proxy.url, timeout=3)
    put(driver, "a")
    proxy.stall()
    with pytest.raises(StoreUnavailable):
        put(driver, "b")
    proxy.heal()
    wait_until(lambda: driver.results(["b"]) != [None], what="what was held back to arrive")
    assert put(driver, "b")[0].created is False


def test_a_listener_notices_that_its_connection_is_half_open(
    connected: Connect, proxy: TcpProxy
) -> None:
    driver = connected(proxy.url, timeout=3)
    driver.wait(["default"], 0.05)
    proxy.stall()
    with pytest.raises(StoreUnavailable):
        driver.wait(["default"], 90)
    proxy.heal()
    driver.wait(["default"], 0.05)


def test_waiters_hear_of_a_cut_and_listen_again(connected: Connect, proxy: TcpProxy) -> None:
    driver = connected(proxy.url)
    put(driver, "a")
    failures: list[StoreUnavailable] = []

    def wait() -> None:
        try:
            driver.wait_results(["a"], 90)
        except StoreUnavailable as error:
            failures.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: proxy.connections() >= 2, what="the waiter to subscribe")
    proxy.cut()
    waiter.join(90)
    assert len(failures) == 1
    wait_until(lambda: proxy.connections() == 0, what="the other connection to be cut, too")
    apply(driver, Settlement.succeed("a", take_one(driver).fence, b"r"))
    (outcome,) = driver.wait_results(["a"], 90)
    assert outcome is not None
    assert outcome.state is State.SUCCEEDED


def test_idle_connections_that_the_server_closed_are_replaced_unnoticed(
    connected: Connect, redis_server: RedisServer
) -> None:
    driver = connected(redis_server.url)
    put(driver, "a")
    with redis_server.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")
    assert take_one(driver).id == "a"


def test_a_long_outage_uses_nothing_up(connected: Connect) -> None:
    """redis-py's pool counts every connection that it ever made, up to a hundred."""
    with RedisServer() as server:
        driver = connected(server.url)
        put(driver, "a")
        server.kill()
        for _ in range(120):
            with pytest.raises(StoreUnavailable):
                put(driver, "b")
            with pytest.raises(StoreUnavailable):
                driver.wait(["default"], 1)
        server.start()
        put(driver, "b")
        driver.wait(["default"], 1)


def test_scripts_that_the_server_forgot_are_sent_again(
    connected: Connect, redis_server: RedisServer
) -> None:
    driver = connected(redis_server.url)
    put(driver, "a")
    with redis_server.client() as client:
        client.script_flush()
    lease = take_one(driver)
    with redis_server.client() as client:
        client.script_flush()
    apply(driver, Settlement.succeed("a", lease.fence, b"r"))


def test_a_paused_server_is_waited_for(connected: Connect, redis_server: RedisServer) -> None:
    driver = connected(redis_server.url)
    put(driver, "a")
    with redis_server.client() as client:
        client.client_pause(200)
    assert take_one(driver).id == "a"


def test_load_survives_kills_and_cuts_of_the_server(connected: Connect) -> None:
    """Kill -9 and restart under load: each acknowledged job ends once, by a valid lease."""
    with RedisServer(aof="always") as server, TcpProxy.before(server.url) as proxy:
        driver = connected(proxy.url, timeout=1)
        acknowledged: set[str] = set()
        applied: dict[str, int] = {}
        stop = threading.Event()
        threads = [
            threading.Thread(target=_enqueue_until, args=(driver, stop, acknowledged)),
            *(
                threading.Thread(target=_work_until, args=(driver, f"h{n}", stop, applied))
                for n in range(2)
            ),
        ]
        for thread in threads:
            thread.start()
        for disturb in (proxy.cut, server.kill, proxy.cut, server.kill):
            _wait_for_more(acknowledged)
            disturb()
            if disturb == server.kill:
                server.start()
        _wait_for_more(acknowledged)
        stop.set()
        for thread in threads:
            thread.join(90)
        # Not on a way that gives up after a second: what is left is nobody's fault.
        patient = connected(server.url)
        _work_until_empty(patient, applied)
        outcomes = patient.results(sorted(acknowledged))
        assert {outcome and outcome.state for outcome in outcomes} == {State.SUCCEEDED}
        assert acknowledged <= applied.keys()
        assert set(applied.values()) == {1}


def _wait_for_more(acknowledged: set[str]) -> None:
    enough = len(acknowledged) + 50
    wait_until(lambda: len(acknowledged) > enough, what="enqueues to go through")


def _enqueue_until(driver: RedisDriver, stop: threading.Event, acknowledged: set[str]) -> None:
    number = 0
    while not stop.is_set():
        batch = [job(f"j{number + n}") for n in range(10)]
        try:
            driver.enqueue(batch)
        except StoreUnavailable:
            continue
        acknowledged.update(message.id for message in batch)
        number += 10


def _work_until(
    driver: RedisDriver, holder: str, stop: threading.Event, applied: dict[str, int]
) -> None:
    """Count the settlements that were applied; a replay that hears "already" was, once."""
    unsent: list[Settlement] = []
    while not stop.is_set() or unsent:
        try:
            reply = driver.exchange(holder, unsent, None if stop.is_set() else WANT)
            reserved = reply.reserved
        except StoreUnavailable:
            continue
        _book(unsent, [one.verdict for one in reply.settled], applied)
        unsent = [Settlement.succeed(lease.id, lease.fence, b"r") for lease in reserved]


def _book(sent: list[Settlement], verdicts: list[Verdict], applied: dict[str, int]) -> None:
    for settlement, verdict in zip(sent, verdicts, strict=True):
        assert verdict in (Verdict.APPLIED, Verdict.ALREADY)
        applied[settlement.job_id] = applied.get(settlement.job_id, 0) + 1


def _work_until_empty(driver: RedisDriver, applied: dict[str, int]) -> None:
    """End what the workers were given and never heard of, and what came after they stopped.

    The one can be nothing while the other is not: only an empty queue says that all is done.
    """
    leases = [*driver.held("h0"), *driver.held("h1")] or take(driver, 100)
    while leases:
        done = [Settlement.succeed(lease.id, lease.fence, b"r") for lease in leases]
        _book(done, [one.verdict for one in driver.exchange("h0", done).settled], applied)
        leases = take(driver, 100)


def test_a_full_server_refuses_and_keeps_nothing(connected: Connect) -> None:
    with RedisServer() as server:
        driver = connected(server.url)
        put(driver, "a")
        with server.client() as client:
            client.config_set("maxmemory", 1)
            with pytest.raises(StoreFull, match="maxmemory"):
                put(driver, "b", "c")
            client.config_set("maxmemory", 0)
        assert driver.results(["a", "b", "c"])[1:] == [None, None]
        assert [lease.id for lease in take(driver, 5)] == ["a"]


def test_what_a_full_server_has_is_worked_on(connected: Connect) -> None:
    """Else it stays full: nobody could end the jobs, nobody would prune."""
    with RedisServer() as server:
        driver = connected(server.url)
        put(driver, "a", "b", "c")
        lease, other = take(driver, 2)
        with server.client() as client:
            client.config_set("maxmemory", 1)
            driver.wait(["other"], 0.05)
            assert driver.extend("h", [Renewal(lease.id, lease.fence, b"p", b"s")], 60)[0].verdict
            assert driver.lead("maintenance", "h", 30) is not None
            apply(
                driver,
                Settlement.retry(lease.id, lease.fence, delay=0.0, error=b"e"),
                Settlement.succeed(other.id, other.fence, b"r"),
            )
            assert driver.promote(10).moved == 0
            assert [one.id for one in driver.retire("holder-1")] == []
            again = take(driver, 2, holder="another")
            assert [one.id for one in again] == ["a", "c"]
            driver.wait_results(["a"], 0.05)
            assert driver.cancel(["a"]) == [CancelVerdict.REQUESTED]
            apply(driver, *(Settlement.succeed(one.id, one.fence, None) for one in again))
            assert driver.delete(["a", "b", "c"]) == [DeleteVerdict.DELETED] * 3
            with pytest.raises(StoreFull):
                put(driver, "d")


def test_a_replica_is_read_only(connected: Connect) -> None:
    with RedisServer() as master, RedisServer() as replica:
        with replica.client() as client:
            client.replicaof("127.0.0.1", master.port)
        wait_until(lambda: is_synced(replica))
        with pytest.raises(StoreReadOnly, match="sentinel"):
            put(connected(replica.url), "a")


def test_a_password_that_is_missing_or_wrong_is_said(connected: Connect) -> None:
    with RedisServer() as server:
        with server.client() as client:
            client.config_set("requirepass", "right")
        try:
            with pytest.raises(ConfigurationError, match="password"):
                put(connected(server.url), "a")
            with pytest.raises(ConfigurationError, match="password"):
                put(connected(server.url.replace("//", "//:wrong@")), "a")
            put(connected(server.url.replace("//", "//:right@")), "a")
        finally:
            server.kill()


def test_nobody_there_is_unavailable(connected: Connect) -> None:
    with RedisServer() as server:
        driver = connected(server.url)
        put(driver, "a")
        server.kill()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            put(driver, "b")
        with pytest.raises(StoreUnavailable):
            driver.wait(["default"], 5)
        server.start()
        assert put(driver, "b")[0].created


def test_a_full_disk_of_the_server_is_told_and_loses_nothing(connected: Connect) -> None:
    acknowledged: list[str] = []

    def takes_one() -> bool:
        name = f"job-{len(acknowledged)}"
        put(driver, name)
        acknowledged.append(name)
        return True

    def says_so() -> bool:
        try:
            takes_one()
        except StoreReadOnly as error:
            return "make room" in str(error)
        return False

    def takes_one_again() -> bool:
        try:
            return takes_one()
        except StoreReadOnly:
            return False

    with RedisServer(aof="everysec") as server:
        driver = connected(server.url)
        takes_one()
        server.fill_disk()
        # It tells a second late: until then it hopes to write what it has acknowledged.
        wait_until(says_so, what="a full disk")
        server.make_room()
        wait_until(takes_one_again, what="room on the disk")
        server.restart()
        kept = [lease.id for lease in take(driver, len(acknowledged) + 1)]
    assert kept == acknowledged
