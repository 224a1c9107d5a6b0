"""Ways in: Sentinels that fail over, TLS that is verified, a socket."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskharbor.conformance.support import apply, put, take, take_one
from taskharbor.drivers.redis import RedisDriver
from taskharbor.errors import StoreError, StoreUnavailable
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.redis.conftest import Connect
from tests.servers.redis import RedisServer, debian_binary
from tests.servers.sentinel import SERVICE, RedisSentinels
from tests.waiting import wait_until


def works(driver: RedisDriver) -> bool:
    try:
        put(driver, driver.new_job_id(None))
    except StoreError:
        return False
    return True


def test_a_driver_follows_the_sentinels_to_the_new_master(connected: Connect) -> None:
    with RedisSentinels() as sentinels:
        hosts = ",".join(f"{host}:{port}" for host, port in sentinels.addresses)
        url = f"redis+sentinel://{hosts}/{SERVICE}/0"
        safe, driver = connected(url, wait_replicas=1), connected(url, timeout=5)
        put(safe, "a", "b")
        lease = take_one(driver)
        driver.wait(["other"], 0.05)
        assert safe.retire("nobody") == []
        sentinels.master.kill()
        with pytest.raises(StoreUnavailable):
            put(driver, "c")
        wait_until(lambda: works(driver), what="the failover")
        assert sentinels.current_master_port() == sentinels.replica.port
        (outcome,) = driver.results(["b"])
        assert outcome is not None
        # The lease may have been lost with the master: then it is given anew, with a larger fence.
        for again in take(driver, 5):
            assert again.fence > lease.fence
        driver.wait(["other"], 0.05)


CA = ("-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
REQUEST = ("-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """ca.crt, and server.crt for 127.0.0.1."""
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl(tmp_path, *new, *CA)
    openssl(tmp_path, *new[:-2], *REQUEST)
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1")
    signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    openssl(tmp_path, "x509", "-req", "-in", "server.csr", "-out", "server.crt", *signing)
    tmp_path.chmod(0o755)
    return tmp_path


class TlsServer(RedisServer):
    """Speaks TLS on ``tls_port`` beside plain text on ``port``."""

    def __init__(self, certificates: Path, binary: str) -> None:
        super().__init__(binary=binary)
        self._certificates = certificates

    @property
    def tls_port(self) -> int:
        return self.port + 1

    def command(self) -> list[str]:
        names = {
            "--tls-cert-file": "server.crt",
            "--tls-key-file": "server.key",
            "--tls-ca-cert-file": "ca.crt",
        }
        files = [
            word
            for option, name in names.items()
            for word in (option, str(self._certificates / name))
        ]
        return [
            *super().command(),
            *("--tls-port", str(self.tls_port), "--tls-auth-clients", "no"),
            *files,
        ]


@pytest.mark.system_servers
def test_tls_is_verified(connected: Connect, certificates: Path) -> None:
    with TlsServer(certificates, debian_binary()) as server:
        ca = certificates / "ca.crt"
        driver = connected(f"rediss://127.0.0.1:{server.tls_port}?ca={ca}")
        put(driver, "a")
        driver.wait(["default"], 0.05)
        apply(driver, Settlement.succeed("a", take_one(driver).fence, b"r"))
        with pytest.raises(StoreUnavailable, match=r"CERTIFICATE_VERIFY_FAILED.*\?ca=FILE"):
            put(connected(f"rediss://127.0.0.1:{server.tls_port}"), "b")
        # The certificate is another name's.
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate|hostname"):
            put(connected(f"rediss://localhost:{server.tls_port}?ca={ca}"), "b")


@pytest.fixture
def socket_server(tmp_path: Path) -> Iterator[tuple[RedisServer, Path]]:
    path = tmp_path / "redis.sock"
    with RedisServer(options=["--unixsocket", str(path)]) as server:
        yield server, path


def test_a_socket_leads_to_the_same_jobs(
    connected: Connect, socket_server: tuple[RedisServer, Path]
) -> None:
    server, path = socket_server
    put(connected(f"unix://{path}"), "a")
    (outcome,) = connected(server.url).results(["a"])
    assert outcome is not None
    assert outcome.state is State.READY
