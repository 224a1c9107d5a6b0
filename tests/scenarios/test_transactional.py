"""Transactional tasks in real workers: their limits, and the pools."""

from __future__ import annotations

import pytest

from taskharbor import TaskFailed
from tests.scenarios import bank
from tests.scenarios.banking import APP_PATH, app, books, url
from tests.scenarios.conftest import StartWorker
from tests.scenarios.worker import Worker
from tests.waiting import wait_until

__all__ = ["app", "books", "url"]


def test_the_soft_limit_ends_a_statement_and_undoes_the_attempt(
    worker: StartWorker, books: bank.Bank
) -> None:
    """In the server as well, where it would keep its locks; and the child lives on."""
    running = worker(app_path=APP_PATH, concurrency=1)
    (child,) = running.children()
    stalled = bank.stall.delay()
    with pytest.raises(TaskFailed) as failed:
        stalled.get(timeout=90)
    assert failed.value.error_type.endswith("SoftTimeLimit")
    wait_until(lambda: not books.runs("'stalled'"), what="the end of the statement")
    assert books.balances(0) == [bank.OPENING_CENTS]
    assert bank.transfer.delay(0, 1, 5).get(timeout=90) == 5
    assert books.balances(0, 1) == [bank.OPENING_CENTS - 5, bank.OPENING_CENTS + 5]
    assert [process.pid for process in running.children()] == [child.pid]


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_each_slot_has_a_transaction_of_its_own(
    worker: StartWorker, books: bank.Bank, pool: str
) -> None:
    met = [bank.meet.delay(number) for number in range(3)]
    worker(app_path=APP_PATH, concurrency=1, pool=pool, slots=3)
    for one in met:
        one.get(timeout=90)
    assert books.balances(0, 1, 2) == [7, 7, 7]


@pytest.mark.timeout(300)
def test_flows_of_transactions_end_once_whatever_is_killed(
    worker: StartWorker, books: bank.Bank
) -> None:
    """Members, the callback of a chord, and what is chained to it: what a settle releases, it
    releases in the transaction of the task."""
    days = 8

    def start() -> Worker:
        return worker(
            app_path=APP_PATH, log_level="warning", lease_seconds=2.0, concurrency=3, ready=False
        )

    found = books.ride_out_days(
        start, days=days, movements=5, every_seconds=0.2, deadline_seconds=240
    )
    print(found.strikes, f"{found.seconds:.0f} s")
    assert (found.succeeded, found.booked_once) == (days, found.jobs)
    assert found.tallies == found.days
    assert found.wrong_accounts == {}
    assert sum(found.strikes.values()) > 0
