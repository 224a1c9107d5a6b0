"""A column arrives as it was sent, whatever is in it and whoever's connection carries it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from taskharbor.drivers.postgres.arrays import Bigints, Blobs, Texts
from tests.servers.postgres import PostgresServer

COLUMNS = [
    (Texts(), "text[]"),
    (Texts(["a"]), "text[]"),
    (Texts(["same", "long", "as it"]), "text[]"),
    (Texts(["é", "zz", "漢字", "", 'quo"ted', "{a,b}", "NULL", "back\\slash"]), "text[]"),
    (Blobs(), "bytea[]"),
    (Blobs([b"\x00\xff", b"ab"]), "bytea[]"),
    (Blobs([None, None]), "bytea[]"),
    (Blobs([b"", None, b"x" * 300, b"\x00"]), "bytea[]"),
    (Bigints(), "bigint[]"),
    (Bigints([0, -1, 2**63 - 1, -(2**63)]), "bigint[]"),
]


@pytest.mark.parametrize(("column", "kind"), COLUMNS)
def test_a_column_arrives_as_it_was_sent(
    postgres_server: PostgresServer, column: list[Any], kind: str
) -> None:
    with psycopg.connect(postgres_server.url) as connection:
        found = connection.execute(f"SELECT %s::{kind}".encode(), [column], binary=True).fetchone()
        assert found == (list(column),)


@pytest.mark.parametrize("encoding", ["LATIN1", "UTF8", "SQL_ASCII"])
def test_texts_are_written_in_the_encoding_of_their_connection(
    postgres_server: PostgresServer, encoding: str
) -> None:
    with psycopg.connect(postgres_server.url, client_encoding=encoding) as connection:
        (length,) = connection.execute(
            "SELECT length((%s::text[])[1])", [Texts(["été"])]
        ).fetchone() or (None,)
        assert length == 3
