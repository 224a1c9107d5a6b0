"""Each fault of the proxy, seen by a real client of a real server."""

import socket
import time
from collections.abc import Iterator

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.proxy import TcpProxy
from tests.servers import RedisServer
from tests.waiting import wait_until


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy.before(redis_server.url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: TcpProxy) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0), socket_timeout=60) as client:
        client.delete("counter")
        yield client


def test_without_a_fault_everything_goes_through(client: redis.Redis) -> None:
    big = b"x" * 1_000_000
    client.set("big", big)
    assert client.get("big") == big
    client.delete("big")


def test_the_url_keeps_account_path_and_query() -> None:
    with TcpProxy.before("postgresql://me:secret@127.0.0.1:5432/shop?sslmode=disable") as proxy:
        assert proxy.url == f"postgresql://me:secret@127.0.0.1:{proxy.port}/shop?sslmode=disable"


def test_a_lost_reply_leaves_the_request_applied_once(proxy: TcpProxy, client: redis.Redis) -> None:
    lost = proxy.lose_next_reply(b"INCR")
    client.ping()
    with pytest.raises(redis.ConnectionError):
        client.incr("counter")
    assert lost.wait(90)
    assert client.get("counter") == b"1"


def test_a_lost_request_is_never_applied(proxy: TcpProxy, client: redis.Redis) -> None:
    lost = proxy.lose_next_request(b"INCR")
    client.ping()
    with pytest.raises(redis.ConnectionError):
        client.incr("counter")
    assert lost.wait(90)
    assert client.get("counter") is None


def test_a_lost_reply_of_a_commit_leaves_postgres_committed(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as direct:
        direct.execute("DROP TABLE IF EXISTS lost_reply")
        direct.execute("CREATE TABLE lost_reply (n int)")
        with TcpProxy.before(postgres_url) as proxy:
            through = psycopg.connect(proxy.url, autocommit=True)
            lost = proxy.lose_next_reply(b"INSERT INTO lost_reply")
            # More rows than fit the server's send buffer: the first leave before the commit.
            statement = "INSERT INTO lost_reply SELECT * FROM generate_series(1, 20000) RETURNING n"
            with pytest.raises(psycopg.OperationalError):
                through.execute(statement)
            assert lost.wait(90)
            through.close()
        assert direct.execute("SELECT count(*) FROM lost_reply").fetchone() == (20_000,)
        direct.execute("DROP TABLE lost_reply")


def test_cut_resets_what_is_open_and_takes_new_connections(proxy: TcpProxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as raw:
        raw.sendall(b"PING\r\n")
        assert raw.recv(100) == b"+PONG\r\n"
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            raw.recv(1)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as raw:
        raw.sendall(b"PING\r\n")
        assert raw.recv(100) == b"+PONG\r\n"


def test_refuse_holds_until_heal(proxy: TcpProxy, client: redis.Redis) -> None:
    client.ping()
    proxy.refuse()
    for _ in range(3):
        with pytest.raises(redis.ConnectionError):
            client.ping()
    proxy.heal()
    assert client.ping()


def test_stalled_connections_answer_after_heal(proxy: TcpProxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.2) as raw:
        proxy.stall()
        raw.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            raw.recv(100)
        proxy.heal()
        raw.settimeout(60)
        assert raw.recv(100) == b"+PONG\r\n"


def test_delay_is_added_in_each_direction(proxy: TcpProxy, client: redis.Redis) -> None:
    client.ping()
    proxy.delay(0.1)
    start = time.monotonic()
    client.ping()
    assert time.monotonic() - start >= 0.2


def test_half_close_ends_one_direction_only(proxy: TcpProxy, redis_server: RedisServer) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as raw:
        raw.sendall(b"PING\r\n")
        assert raw.recv(100) == b"+PONG\r\n"
        proxy.half_close("client")
        assert raw.recv(100) == b""
        raw.sendall(b"SET half-closed heard\r\n")
        with redis_server.client() as direct:
            wait_until(lambda: direct.get("half-closed"), what="the request to arrive")
            direct.delete("half-closed")


def test_a_dead_server_ends_the_clients_connection() -> None:
    with RedisServer() as server, TcpProxy.before(server.url) as proxy:
        raw = socket.create_connection(("127.0.0.1", proxy.port), timeout=60)
        raw.sendall(b"PING\r\n")
        assert raw.recv(100) == b"+PONG\r\n"
        server.kill()
        assert raw.recv(100) == b""
        raw.close()
        wait_until(lambda: proxy.connections() == 0, what="the proxy to forget the connection")
