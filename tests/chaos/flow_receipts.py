"""Stores receipts, each with the flow that works it off in one transaction of Postgres, until
somebody kills it. Prints the id of each flow whose commit was confirmed.

python -m tests.chaos.flow_receipts URL SEED
"""

from __future__ import annotations

import sys
import time
from random import Random

import psycopg

from taskharbor import group
from taskharbor.errors import StoreError
from taskharbor.ids import new_id
from tests.chaos.flow_tasks import fold, folded, number, shift_async
from tests.chaos.tasks import app

TABLE = "CREATE TABLE receipts (flow text PRIMARY KEY, value bigint NOT NULL)"
REGRETTED = 0.25
"""Of the transactions: rolled back in the end."""
AGAIN_SECONDS = 0.05


def main(url: str, seed: int) -> None:
    app.url = url
    rng = Random(seed)
    while True:
        try:
            _store(url, rng)
        except (psycopg.Error, StoreError):
            time.sleep(AGAIN_SECONDS)  # whether it was committed, nobody here knows


def _store(url: str, rng: Random) -> None:
    values = [rng.randrange(10**6) for _ in range(rng.randrange(1, 4))]
    canvas = group(number.s(value) for value in values) | fold.s() | shift_async.s(values[0])
    regretted = rng.random() < REGRETTED
    with psycopg.connect(url, connect_timeout=5) as connection:
        flow = canvas.apply_async(idempotency_key=f"receipt-{new_id()}", connection=connection)
        value = folded([folded(values), values[0]])
        connection.execute("INSERT INTO receipts VALUES (%s, %s)", (flow.id, value))
        if regretted:
            connection.rollback()
    if not regretted:
        print(flow.id, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
