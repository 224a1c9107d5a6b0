"""PgBouncer in transaction mode in front of a Postgres server (Debian's package)."""

import shutil
from pathlib import Path

import psycopg

from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerFailed, ServerProcess

CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={postgres_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users.txt
admin_users = postgres
pool_mode = transaction
max_client_conn = 1000
default_pool_size = {pool_size}
"""


def debian_binary() -> str:
    """The system's pgbouncer; raises `ServerFailed` with the remedy where there is none."""
    path = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if path is None:
        raise ServerFailed("No pgbouncer on this machine: apt-get install pgbouncer")
    return path


class PgBouncer(ServerProcess):
    """A pool of `pool_size` server connections per database, handed out per transaction."""

    name = "pgbouncer"
    refuses_root = True

    def __init__(self, postgres: PostgresServer, *, pool_size: int = 10) -> None:
        super().__init__()
        self._postgres = postgres
        self._pool_size = pool_size

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        """The URL of one of the server's databases, through the pool."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        self._write("users.txt", '"postgres" ""\n')
        configuration = CONFIGURATION.format(
            postgres_port=self._postgres.port,
            port=self.port,
            directory=self.directory,
            pool_size=self._pool_size,
        )
        return [debian_binary(), str(self._write("pgbouncer.ini", configuration))]

    def is_ready(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=5) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        self.give_to_user(path)
        return path
