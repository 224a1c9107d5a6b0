"""The servers that other tests rely on: they answer, survive a kill, and die with their run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from taskharbor.ids import new_id
from tests.proxy import TcpProxy
from tests.servers import (
    PgBouncer,
    PostgresServer,
    RedisCluster,
    RedisSentinels,
    RedisServer,
    process,
)
from tests.servers import postgres as postgres_servers
from tests.servers.redis import RedisReplica
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


def test_redis_url_is_answered_by_a_redis_that_evicts_nothing(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_redis7_is_a_redis_7(redis7_url: str) -> None:
    with redis.Redis.from_url(redis7_url) as client:
        assert client.info("server")["redis_version"].startswith("7.")


def test_postgres_url_is_answered(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.info.server_version >= 13_00_00


def test_postgres15_is_a_postgres_15(postgres15_url: str) -> None:
    with psycopg.connect(postgres15_url) as connection:
        assert connection.info.server_version // 10_000 == 15


def test_pgbouncer_hands_connections_out_per_transaction(pgbouncer_server: PgBouncer) -> None:
    with psycopg.connect(pgbouncer_server.database_url("pgbouncer"), autocommit=True) as admin:
        admin.prepare_threshold = None
        settings = {row[0]: row[1] for row in psycopg.ClientCursor(admin).execute("SHOW CONFIG")}
    assert settings["pool_mode"] == "transaction"


def test_redis_with_aof_keeps_acknowledged_writes_over_a_kill() -> None:
    with RedisServer(aof="always") as server:
        with server.client() as client:
            client.set("job", "kept")
        port = server.port
        server.kill()
        server.start()
        assert server.port == port
        with server.client() as client:
            assert client.get("job") == b"kept"


def test_a_replica_takes_over_with_all_that_was_acknowledged() -> None:
    with (
        RedisServer(aof="always") as primary,
        RedisReplica(primary, aof="always") as replica,
        TcpProxy.before(primary.url) as address,
    ):
        with redis.Redis.from_url(address.url) as client:
            client.set("before", "kept")
        replica.take_over()
        address.turn_to(replica.url)
        assert not primary.running
        replica.restart()  # as a primary, and not as a replica of one that is gone
        with redis.Redis.from_url(address.url) as client:
            client.set("after", "kept")
            assert client.mget("before", "after") == [b"kept", b"kept"]


@pytest.mark.parametrize(
    "binaries",
    ["wheel_binaries", pytest.param("debian_binaries", marks=pytest.mark.system_servers)],
)
def test_postgres_keeps_commits_over_a_kill(binaries: str) -> None:
    with PostgresServer(binaries=getattr(postgres_servers, binaries)()) as server:
        url = server.create_database("kept")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE job AS SELECT 'kept' AS state")
        backends = psutil.Process(server.pid).children(recursive=True)
        server.kill()
        assert not any(backend.is_running() for backend in backends)
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT state FROM job").fetchone() == ("kept",)


def test_pause_leaves_connections_open_and_unanswered() -> None:
    with RedisServer() as server, server.client() as client:
        client.ping()
        server.pause()
        with server.client(reply_seconds=0.2) as impatient, pytest.raises(redis.TimeoutError):
            impatient.ping()
        server.resume()
        assert client.ping()


def test_a_server_whose_port_is_taken_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer() as first:
        ports = iter([first.port, process.free_port()])
        monkeypatch.setattr(process, "free_port", lambda: next(ports))
        with RedisServer() as second, second.client() as client:
            assert second.port != first.port
            assert client.info("server")["process_id"] == second.pid


def test_a_server_that_cannot_start_says_why() -> None:
    server = RedisServer(options=["--no-such-option", "1"])
    with pytest.raises(process.ServerFailed, match="no-such-option"):
        server.start()


def test_the_wheels_postgres_runs_from_a_private_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_servers, "reachable_by_anyone", lambda _: False)
    binaries = postgres_servers.wheel_binaries.__wrapped__()
    with PostgresServer(binaries=binaries) as server, psycopg.connect(server.url) as connection:
        assert connection.info.server_version // 10_000 == 18


def test_cluster_shares_the_slots_and_routes_keys(redis_cluster: RedisCluster) -> None:
    keys = [f"{new_id()}-{i}" for i in range(50)]
    with redis.RedisCluster(port=redis_cluster.masters[0].port, host="127.0.0.1") as client:
        for i, key in enumerate(keys):
            client.set(key, i)
        assert [int(client.get(key) or -1) for key in keys] == list(range(50))
    held = []
    for node in redis_cluster.masters:
        with node.client() as direct:
            # Of these: other tests leave theirs.
            held.append(len({*direct.scan_iter()}.intersection(key.encode() for key in keys)))
    assert sum(held) == 50
    assert all(held)


def test_cluster_replica_takes_over_from_a_killed_master() -> None:
    with RedisCluster(replicas=1) as cluster:
        cluster.masters[0].kill()
        heir = cluster.replicas[0]

        def promoted() -> bool:
            with heir.client() as client:
                return bool(client.info("replication")["role"] == "master")

        wait_until(promoted, what="the replica to take over")


STARTER = """
import sys
from tests.servers import PostgresServer, RedisServer
server = {server}().start()
print(server.pid, server.directory, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("server", ["RedisServer", "PostgresServer"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_a_server_dies_with_the_run_that_started_it(
    server: str, end: signal.Signals | None
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER.format(server=server)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        pid, directory = run.stdout.readline().split()
        family = [psutil.Process(int(pid)), *psutil.Process(int(pid)).children(recursive=True)]
        if end is None:
            run.communicate()
        else:
            run.send_signal(end)
        _, alive = psutil.wait_procs(family, timeout=90)
    assert not alive
    process.scratch_directory("next-run")
    assert not Path(directory).exists()


def test_an_environment_url_is_used_as_it_is() -> None:
    test = f"{__file__}::test_redis_url_is_answered_by_a_redis_that_evicts_nothing"
    report = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--setup-plan", test],
        cwd=ROOT,
        env={**os.environ, "TASKHARBOR_TEST_REDIS_URL": "redis://example.invalid:1/0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert "redis_url" in report.stdout
    assert "redis_server" not in report.stdout


def test_sentinels_promote_the_replica_of_a_killed_master() -> None:
    with RedisSentinels() as group:
        assert group.current_master_port() == group.master.port
        group.master.kill()
        wait_until(
            lambda: group.current_master_port() == group.replica.port,
            what="the replica's promotion",
        )
        with group.replica.client() as client:
            assert client.info("replication")["role"] == "master"
