"""Import a CSV file of orders: read, validate in parallel, load, report."""

import csv
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, NamedTuple

from taskharbor import TaskHarbor, group

app = TaskHarbor(os.environ.get("TASKHARBOR_URL", "sqlite:///jobs.db"), name="csv_import")

ROWS_IN_A_PART = 10


class Order(NamedTuple):
    number: int
    ordered: date
    customer: str
    amount: Decimal


class Part(NamedTuple):
    """What validation made of some lines. ``problems``: (line, what is wrong)."""

    orders: list[Order]
    problems: list[tuple[int, str]]


@app.task
def import_file(path: str, database: str) -> Any:
    """Cut the file in parts, and let the import go on with those."""
    with open(path, newline="", encoding="utf-8") as file:
        parts = [validate.s(rows) for rows in _parts(csv.DictReader(file))]
    return group(parts) | load.s(database) | report.s()


def _parts(reader: "csv.DictReader[str]") -> Iterator[list[tuple[int, dict[str, str]]]]:
    lines = ((reader.line_num, row) for row in reader)
    while part := list(islice(lines, ROWS_IN_A_PART)):
        yield part


@app.task
def validate(rows: list[tuple[int, dict[str, str]]]) -> Part:
    orders, problems = [], []
    for line, row in rows:
        try:
            orders.append(_order(row))
        except (ValueError, InvalidOperation, KeyError) as error:
            problems.append((line, f"{type(error).__name__}: {error}"))
    return Part(orders, problems)


def _order(row: dict[str, str]) -> Order:
    amount = Decimal(row["amount"])
    if amount <= 0:
        raise ValueError(f"an amount of {amount}")
    if not row["customer"].strip():
        raise ValueError("no customer")
    ordered = date.fromisoformat(row["date"])
    return Order(int(row["number"]), ordered, row["customer"].strip(), amount)


@app.task
def load(parts: list[Part], database: str) -> Part:
    """All good rows, in one transaction. Done twice, it is as if it was done once."""
    orders = [order for part in parts for order in part.orders]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders"
            " (number INTEGER PRIMARY KEY, date TEXT, customer TEXT, cents INTEGER)"
        )
        connection.executemany(
            "INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)",
            [(o.number, o.ordered.isoformat(), o.customer, int(o.amount * 100)) for o in orders],
        )
    return Part(orders, [problem for part in parts for problem in part.problems])


@app.task
def report(loaded: Part) -> str:
    total = sum((order.amount for order in loaded.orders), Decimal())
    lines = [f"{len(loaded.orders)} orders for {total} loaded, {len(loaded.problems)} refused"]
    return "\n".join(lines + [f"  line {line}: {what}" for line, what in loaded.problems])
