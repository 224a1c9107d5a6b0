"""Storing messages: all of a batch in one transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

from taskharbor.drivers.base import Enqueued
from taskharbor.drivers.sqlite.changes import UNTIL_TERMINAL
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.transaction import Row, Tx, as_texts
from taskharbor.message import Message
from taskharbor.states import State

_SQL = load("enqueue")


def enqueue(tx: Tx, batch: Sequence[Message]) -> list[Enqueued]:
    """``tx`` must have asked for as many new jobs as the batch is long."""
    queues = {name: queue_id(tx, name) for name in {message.queue for message in batch}}
    if all(message.idempotency_key is None for message in batch):
        tx.execute("SAVEPOINT fresh")
        try:
            _insert(tx, batch, queues)
        except sqlite3.IntegrityError:
            # An id is there already. Rare (a repeated request), so it is found out by failing.
            tx.execute("ROLLBACK TO fresh")
        else:
            return [Enqueued(message.id, True) for message in batch]
    answers, fresh = _sort_out(tx, batch, queues)
    _insert(tx, fresh, queues)
    return answers


def queue_id(tx: Tx, name: str) -> int:
    """The queue's number, given on first sight."""
    row = tx.one(_SQL["queue_id"], (name,))
    if row is None:
        tx.execute(_SQL["add_queue"], (name,))
        row = tx.one(_SQL["queue_id"], (name,))
    assert row is not None
    number: int = row[0]
    return number


def _insert(tx: Tx, batch: Sequence[Message], queues: dict[str, int]) -> None:
    now = tx.now
    before = tx.last_seq - len(batch)
    rows = insert_rows(tx, batch, queues, before + 1)
    ready = tx.execute(_SQL["line_up_new"], (before, now)).rowcount
    if ready < len(batch):
        tx.execute(_SQL["schedule_new"], (before, now))
    for (queue, is_due), jobs in Counter((row[2], row[6] <= now) for row in rows).items():
        tx.count(queue, State.READY if is_due else State.SCHEDULED, jobs)
    keys = [
        (queues[message.queue], key, seq, free_at(now, _key_seconds(message)))
        for seq, message in enumerate(batch, before + 1)
        if (key := message.idempotency_key) is not None
    ]
    if keys:
        tx.executemany(_SQL["take_key"], keys)
    if ready:
        tx.wake()


def insert_rows(tx: Tx, batch: Sequence[Message], queues: dict[str, int], first: int) -> list[Row]:
    """The jobs themselves, numbered from ``first``: the columns of ``insert_jobs``."""
    now = tx.now
    rows = [
        (
            seq,
            message.id,
            queues[message.queue],
            message.task,
            message.priority,
            now,
            message.due_at(now),
            message.expiry(now),
            *message.retention,
            message.idempotency_key,
            _key_seconds(message),
            message.digest,
            message.body,
        )
        for seq, message in enumerate(batch, first)
    ]
    tx.executemany(_SQL["insert_jobs"], rows)
    return rows


def _key_seconds(message: Message) -> float | None:
    until = message.key_until
    if until == "record":
        return None
    return UNTIL_TERMINAL if until == "terminal" else float(until)


def free_at(enqueued_at: float, key_seconds: float | None) -> float | None:
    """When a key is free though its job's record still stands; None: not by time."""
    if key_seconds is None or key_seconds == UNTIL_TERMINAL:
        return None
    return enqueued_at + key_seconds


def _sort_out(
    tx: Tx, batch: Sequence[Message], queues: dict[str, int]
) -> tuple[list[Enqueued], list[Message]]:
    """The answer for each message, and the messages that are new."""
    ids = as_texts(message.id for message in batch)
    there: dict[str, bytes] = {row[0]: row[1] for row in tx.all(_SQL["find_ids"], (ids,))}
    taken: dict[tuple[str, str], tuple[str, bytes]] = {}
    answers, fresh = [], []
    for message in batch:
        found = _find(tx, message, queues, there, taken)
        if found is not None:
            answers.append(Enqueued(found[0], False, found[1] == message.digest))
            continue
        there[message.id] = message.digest
        if message.idempotency_key is not None and message.key_until != 0:
            taken[message.queue, message.idempotency_key] = (message.id, message.digest)
        fresh.append(message)
        answers.append(Enqueued(message.id, True))
    return answers, fresh


def _find(
    tx: Tx,
    message: Message,
    queues: dict[str, int],
    there: dict[str, bytes],
    taken: dict[tuple[str, str], tuple[str, bytes]],
) -> tuple[str, bytes] | None:
    """Id and digest of the job that is there instead of ``message``."""
    if message.id in there:
        return message.id, there[message.id]
    key = message.idempotency_key
    if key is None:
        return None
    if (message.queue, key) in taken:
        return taken[message.queue, key]
    arguments: tuple[Any, ...] = (queues[message.queue], key, tx.now)
    return tx.one(_SQL["find_key"], arguments)
