"""What a URL says, and what it can't change."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from taskharbor.drivers.base import Renewal, Want
from taskharbor.drivers.postgres import connect
from taskharbor.drivers.postgres.address import parse
from taskharbor.errors import ConfigurationError
from taskharbor.ids import new_id
from taskharbor.settlement import Settlement
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer


def test_what_is_libpq_s_reaches_it_unchanged() -> None:
    query = "password=a+b%2Bc%20d%26&options=-c%20x%3D1&sslmode=disable&pool=3"
    options = conninfo_to_dict(parse(f"postgresql://ann@one:1,two:2/shop?{query}").conninfo)
    assert options["password"] == "a+b+c d&"
    assert options["options"] == "-c x=1"
    assert (options["host"], options["port"], options["dbname"]) == ("one,two", "1,2", "shop")
    assert (options["user"], options["sslmode"]) == ("ann", "disable")


@pytest.mark.parametrize("secret", ["12/34", "xy/34", "xy?34", "xy#34", "1#c:d"])
def test_a_password_that_ends_the_host_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="percent-encoded") as refused:
        parse(f"postgresql://ann:{secret}@db.example/shop")
    assert secret[:2] not in str(refused.value)


@pytest.mark.parametrize(
    "hosts",
    ["", "db", "db:5432", "[::1]:5432", "[::1]", "a:1,b", "a,b:", "ann:a%2Fb@db"],
)
def test_hosts_are_read_as_libpq_reads_them(hosts: str) -> None:
    url = f"postgresql://{hosts}/shop"
    given = conninfo_to_dict(url)
    for name in ("host", "port"):
        assert conninfo_to_dict(parse(url).conninfo).get(name) == given.get(name)


def test_keys_survive_in_whatever_encoding_the_database_and_its_clients_have(
    postgres_server: PostgresServer,
) -> None:
    """psycopg returns texts of a database without an encoding as bytes."""
    name = f"ascii_{new_id()}"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        create = f"CREATE DATABASE {name} ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0"
        connection.execute(create.encode())
    url = f"{postgres_server.database_url(name)}?client_encoding=latin1"
    with closing(connect(url)) as driver:
        driver.migrate()
        driver.enqueue([job("first", idempotency_key="ключ")])
        (again,) = driver.enqueue([job("second", idempotency_key="ключ")])
        assert (again.id, again.created) == ("first", False)
        found = driver.get("first")
        assert found is not None
        assert (found.id, found.idempotency_key) == ("first", "ключ")


def test_bytes_survive_where_backslashes_in_literals_are_escapes(
    postgres_server: PostgresServer,
) -> None:
    old_fashioned = "-c%20standard_conforming_strings=off"
    with closing(migrated(postgres_server.url, options=old_fashioned)) as driver:
        driver.enqueue([job("a")])
        (lease,) = driver.exchange("holder", (), Want(("default",), 1, 60.0)).reserved
        renewal = Renewal("a", lease.fence, progress=b"\xc3p", saved=b"\xc3s")
        driver.extend("holder", [renewal], 60.0)
        died = Settlement.die("a", lease.fence, error=b"\xc3e")
        driver.exchange("holder", [died])
        found = driver.get("a")
        assert found is not None
        assert (found.progress, found.saved, found.error) == (b"\xc3p", b"\xc3s", b"\xc3e")
