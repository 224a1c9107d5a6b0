"""The file that the demo imports: made-up orders, the same ones every time."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple

CHUNK_ROWS = 50
CUSTOMERS = 500
KEY_ITERATIONS = 2000
"""Makes a row cost about a millisecond, as a look-up or a validation would."""

_COUNTRIES = ("AT", "BR", "DE", "FR", "IN", "JP", "KE", "NZ", "PL", "US")
_FIELDS = ("order_id", "email", "country", "placed_on", "amount")


class Order(NamedTuple):
    """One order as it is stored. ``customer_key`` stands for the address, which is not kept."""

    order_id: int
    customer_key: str
    country: str
    placed_on: str
    cents: int


class Chunk(NamedTuple):
    """``rows`` lines of the file, from byte ``offset`` on."""

    number: int
    offset: int
    rows: int


def write_file(path: Path, rows: int) -> None:
    """``rows`` orders as CSV with a heading."""
    rng = Random(20_260_101)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_FIELDS)
        for number in range(1, rows + 1):
            customer = rng.randrange(CUSTOMERS)
            placed_on = date(2026, 1, 1) + timedelta(days=rng.randrange(365))
            amount = Decimal(rng.randrange(100, 500_000)) / 100
            email = f"Customer.{customer:03}@example.com"
            writer.writerow([number, email, rng.choice(_COUNTRIES), placed_on, f"{amount:.2f}"])


def split(path: Path) -> list[Chunk]:
    """The file in chunks of ``CHUNK_ROWS`` lines."""
    chunks: list[Chunk] = []
    with path.open("rb") as file:
        file.readline()
        while True:
            offset = file.tell()
            rows = sum(1 for _ in islice(iter(file.readline, b""), CHUNK_ROWS))
            if rows == 0:
                return chunks
            chunks.append(Chunk(len(chunks), offset, rows))


def read_chunk(path: Path, chunk: Chunk) -> Iterator[Order]:
    """The chunk's orders, each turned into what is stored."""
    with path.open("rb") as file:
        file.seek(chunk.offset)
        lines = (line.decode() for line in islice(file, chunk.rows))
        for number, email, country, placed_on, amount in csv.reader(lines):
            yield Order(
                order_id=int(number),
                customer_key=customer_key(email),
                country=country,
                placed_on=placed_on,
                cents=int(Decimal(amount) * 100),
            )


def customer_key(email: str) -> str:
    """A key for the customer from which the address can't be read."""
    raw = hashlib.pbkdf2_hmac("sha256", email.lower().encode(), b"demo", KEY_ITERATIONS)
    return raw.hex()[:32]


def checksum(orders: Iterable[Order]) -> str:
    """SHA-256 over all fields of all orders, which must come in the order of their ids."""
    digest = hashlib.sha256()
    for order in orders:
        digest.update("|".join(map(str, order)).encode() + b"\n")
    return digest.hexdigest()


def expected_checksum(path: Path) -> str:
    """What the table must have, computed from the file alone, without any job."""
    key = lru_cache(maxsize=None)(customer_key)
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        return checksum(
            Order(int(number), key(email), country, day, int(Decimal(amount) * 100))
            for number, email, country, day, amount in rows
        )
