"""Transactional tasks in real workers: their limits, and the pools."""

from __future__ import annotations

import pytest

from taskharbor import TaskFailed
from tests.scenarios import bank
from tests.scenarios.banking import APP_PATH, app, books, url
from tests.scenarios.conftest import StartWorker
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
