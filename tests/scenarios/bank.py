"""A bank: jobs move money between accounts, each in its own transaction. Under a storm of kills
every movement happens exactly once, or the books do not balance."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import psycopg

from taskharbor import Fixed, State, TaskHarbor, chord, current_job
from taskharbor.flow.composed import Composed
from taskharbor.flow.plan import FlowState
from tests.scenarios.worker import Worker

app = TaskHarbor(name="bank", backoff=Fixed(0.02), max_attempts=1000, max_losses=1000)

ACCOUNTS = 20
OPENING_CENTS = 1_000_000
_TABLES = """
CREATE SCHEMA bank;
CREATE TABLE bank.accounts (number int PRIMARY KEY, cents bigint NOT NULL);
-- Not unique: a movement that is booked twice shall show.
CREATE TABLE bank.movements (job text, attempt int, source int, target int, cents bigint);
CREATE TABLE bank.tallies (day int, step text, cents bigint);
"""


@app.task(transactional=True)
def transfer(connection: psycopg.Connection, source: int, target: int, cents: int) -> int:
    """Slow enough to be killed in the middle. A tenth of the first attempts fail at the end."""
    job = current_job()
    for account, change in sorted([(source, -cents), (target, cents)]):
        connection.execute(
            "UPDATE bank.accounts SET cents = cents + %s WHERE number = %s", (change, account)
        )
        connection.execute("SELECT pg_sleep(random() * 0.01)")
    connection.execute(
        "INSERT INTO bank.movements VALUES (%s, %s, %s, %s, %s)",
        (job.id, job.attempt, source, target, cents),
    )
    if job.attempt == 1 and cents % 10 == 0:
        raise LookupError("not this time")
    return cents


@app.task(transactional=True)
def tally(connection: psycopg.Connection, amounts: list[int], day: int) -> int:
    """When all movements of a day are booked."""
    return _write_down(connection, day, "tally", sum(amounts))


@app.task(transactional=True)
def close_day(connection: psycopg.Connection, cents: int, day: int) -> int:
    """When they are tallied."""
    return _write_down(connection, day, "close", cents)


def _write_down(connection: psycopg.Connection, day: int, step: str, cents: int) -> int:
    connection.execute("INSERT INTO bank.tallies VALUES (%s, %s, %s)", (day, step, cents))
    connection.execute("SELECT pg_sleep(random() * 0.02)")
    return cents


@app.task(transactional=True, timeout=0.5, max_attempts=1)
def stall(connection: psycopg.Connection) -> None:
    connection.execute("UPDATE bank.accounts SET cents = 0 WHERE number = 0")
    connection.execute("SELECT pg_sleep(60), 'stalled'")


@app.task(transactional=True)
def meet(connection: psycopg.Connection, number: int) -> None:
    """Ends when three are in their transactions at the same time, in one process."""
    connection.execute("UPDATE bank.accounts SET cents = 7 WHERE number = %s", (number,))
    _all_three.wait(90)


_all_three = threading.Barrier(3)


@dataclass(frozen=True, slots=True)
class Movement:
    source: int
    target: int
    cents: int


@dataclass(slots=True)
class Books:
    """What was ordered, what became of it, and how rough it was. All amounts in cents."""

    jobs: int
    succeeded: int = 0
    booked_once: int = 0
    wrong_accounts: dict[int, tuple[int, int]] = field(default_factory=dict)
    strikes: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    losses: int = 0
    seconds: float = 0.0
    tallies: Counter[tuple[int, str, int]] = field(default_factory=Counter)
    days: Counter[tuple[int, str, int]] = field(default_factory=Counter)
    """What ``tallies`` has to be: by day and step, the sum of its movements, once."""


def _day(day: int, ordered: list[Movement]) -> Composed[int]:
    movements = [transfer.s(one.source, one.target, one.cents) for one in ordered]
    return chord(movements, tally.s(day)) | close_day.s(day)


class Bank:
    """The bank's tables in the database at ``url``, and a seed that is printed."""

    def __init__(self, url: str) -> None:
        self.seed = random.randrange(1 << 32)
        print(f"seed {self.seed}")
        self._rng = random.Random(self.seed)
        self._connection = psycopg.connect(url, autocommit=True, application_name="auditor")
        self._connection.execute(_TABLES)
        self._connection.cursor().executemany(
            "INSERT INTO bank.accounts VALUES (%s, %s)",
            [(number, OPENING_CENTS) for number in range(ACCOUNTS)],
        )

    def close(self) -> None:
        self._connection.close()

    def balances(self, *numbers: int) -> list[int]:
        wanted = "SELECT cents FROM bank.accounts WHERE number = ANY (%s) ORDER BY number"
        return [cents for (cents,) in self._connection.execute(wanted, (list(numbers),))]

    def runs(self, statement: str) -> bool:
        """Whether a session is executing a statement that contains this."""
        active = (
            "SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND pid <> %s"
        )
        mine = self._connection.info.backend_pid
        return self._connection.execute(active, (f"%{statement}%", mine)).fetchone() is not None

    def connections(self) -> int:
        """Of workers, as they are now."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'taskharbor'"
        (count,) = self._connection.execute(query).fetchone() or (0,)
        return int(count)

    def ride_out(
        self,
        start_worker: Callable[[], Worker],
        *,
        jobs: int,
        every_seconds: float,
        deadline_seconds: float,
    ) -> Books:
        """Order ``jobs`` movements and strike every ``every_seconds``, if anything was done since
        the last time, until all ended, or the time is over."""
        books = Books(jobs)
        orders = [self._order() for _ in range(jobs)]
        ids = [
            result.id
            for result in app.enqueue_many(
                [transfer.s(one.source, one.target, one.cents) for one in orders]
            )
        ]
        self._weather(books, start_worker, every_seconds, deadline_seconds)
        self._audit(books, dict(zip(ids, orders, strict=True)))
        return books

    def ride_out_days(
        self,
        start_worker: Callable[[], Worker],
        *,
        days: int,
        movements: int,
        every_seconds: float,
        deadline_seconds: float,
    ) -> Books:
        """The same with flows: so many ``movements`` a day, tallied when all are booked, and then
        the day is closed."""
        books = Books(days * movements)
        orders = [[self._order() for _ in range(movements)] for _ in range(days)]
        flows = [_day(day, ordered).delay() for day, ordered in enumerate(orders)]
        self._weather(books, start_worker, every_seconds, deadline_seconds)
        books.succeeded = sum(flow.state is FlowState.SUCCEEDED for flow in flows)
        self._audit_days(books, orders)
        return books

    def _weather(
        self,
        books: Books,
        start_worker: Callable[[], Worker],
        every_seconds: float,
        deadline_seconds: float,
    ) -> None:
        worker = start_worker()
        began = time.monotonic()
        left = inf
        while (now_left := self._unfinished()) and time.monotonic() - began < deadline_seconds:
            time.sleep(self._rng.uniform(0.5, 1.5) * every_seconds)
            if not worker.children() or now_left >= left:
                continue  # it is starting, or slow: let it do something first
            left = now_left
            what = self._strike(worker)
            books.strikes[what] += 1
            if what == "supervisor":
                worker.wait()
                worker = start_worker()
        books.seconds = time.monotonic() - began

    def _order(self) -> Movement:
        source, target = self._rng.sample(range(ACCOUNTS), 2)
        return Movement(source, target, self._rng.randint(1, 500))

    def _unfinished(self) -> int:
        waiting = (State.READY, State.SCHEDULED, State.RUNNING, State.BLOCKED)
        return sum(queue.counts[state] for queue in app.driver.queues() for state in waiting)

    # --- the storm ------------------------------------------------------------------------------

    def _strike(self, worker: Worker) -> str:
        """Kill something; what it was."""
        (what,) = self._rng.choices(
            ["child", "backend", "maintenance", "generation", "supervisor"], [65, 20, 8, 4, 3]
        )
        if what == "backend":
            self._connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s",
                (self._a_backend(),),
            )
            return what
        if what == "supervisor":
            victims = worker.processes()[:1]
        else:
            victims = worker.children() if what == "child" else worker.named(f"th-{what}")
        if not victims:
            return "nobody there"
        try:
            os.kill(self._rng.choice(victims).pid, signal.SIGKILL)
        except ProcessLookupError:
            return "nobody there"
        return what

    def _a_backend(self) -> int | None:
        rows = self._connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'taskharbor' ORDER BY pid"
        ).fetchall()
        return self._rng.choice(rows)[0] if rows else None

    # --- the audit ------------------------------------------------------------------------------

    def _audit(self, books: Books, orders: dict[str, Movement]) -> None:
        records = [app.driver.get(job_id) for job_id in orders]
        found = [record for record in records if record is not None]
        books.succeeded = sum(record.state is State.SUCCEEDED for record in found)
        books.attempts = sum(record.attempts for record in found)
        books.losses = sum(record.losses for record in found)
        rows = self._connection.execute("SELECT job, source, target, cents FROM bank.movements")
        booked = [(job, Movement(*movement)) for job, *movement in rows]
        times = Counter(job for job, _ in booked)
        books.booked_once = sum(times[job] == 1 and orders[job] == one for job, one in booked)
        self._audit_accounts(books, list(orders.values()))

    def _audit_days(self, books: Books, orders: list[list[Movement]]) -> None:
        everything = [order for ordered in orders for order in ordered]
        rows = self._connection.execute("SELECT source, target, cents FROM bank.movements")
        booked = Counter(Movement(*movement) for movement in rows)
        books.booked_once = (booked & Counter(everything)).total() - (
            booked - Counter(everything)
        ).total()
        tallies = self._connection.execute("SELECT day, step, cents FROM bank.tallies")
        books.tallies = Counter((day, step, cents) for day, step, cents in tallies)
        books.days = Counter(
            (day, step, sum(order.cents for order in ordered))
            for day, ordered in enumerate(orders)
            for step in ("tally", "close")
        )
        self._audit_accounts(books, everything)

    def _audit_accounts(self, books: Books, orders: list[Movement]) -> None:
        right = dict.fromkeys(range(ACCOUNTS), OPENING_CENTS)
        for order in orders:
            right[order.source] -= order.cents
            right[order.target] += order.cents
        accounts = self._connection.execute("SELECT number, cents FROM bank.accounts")
        has: dict[int, int] = dict(accounts.fetchall())
        books.wrong_accounts = {
            number: (cents, has[number]) for number, cents in right.items() if has[number] != cents
        }
