"""Storing messages: a statement for a batch, in a transaction of ours or the caller's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from taskharbor.drivers.base import Enqueued
from taskharbor.drivers.postgres import columns
from taskharbor.drivers.postgres.connections import Connection, OpenBlock
from taskharbor.drivers.postgres.statements import Rows
from taskharbor.drivers.postgres.store import Store
from taskharbor.errors import ConfigurationError
from taskharbor.message import Message

LOOK_SECONDS = 0.001
"""How long a session that puts one job after the other in line need not look who waits for them.
Who begins to wait meanwhile is told by the first after that, or looks by itself after 2 ms."""


def enqueue(store: Store, batch: Sequence[Message]) -> list[Enqueued]:
    if len(batch) == 1 and batch[0].idempotency_key is None:
        # Statements of its own: arrays of one cost delay() as much again as all the rest.
        message = batch[0]
        if store.call(lambda connection: _enqueue_one(store, message, connection)):
            return [Enqueued(message.id, True)]
    first, *others = _without_repeats(batch)
    arguments = columns.of_messages(first)
    if not others:
        return _answers(first, store.rows("enqueue", now=store.now, always=False, **arguments))

    def step(connection: psycopg.Connection) -> list[Enqueued]:
        with connection.transaction():
            return enqueue_in(store, batch, connection, always=False)

    return store.call(step)


def _enqueue_one(store: Store, message: Message, connection: Connection) -> bool:
    """False when its id is taken."""
    arguments = columns.of_message(message)
    arguments["now"] = store.now
    line = (message.queue, message.priority)
    began = time.monotonic()
    block = connection.open_blocks.get(line)
    if block is not None and began - block.looked_at < LOOK_SECONDS and _is_plain(message):
        arguments["block"] = block.number
        arguments["tables"] = block.tables
        try:
            if connection.run(store.parsed["enqueue_next"], arguments):
                return True
        except psycopg.errors.UniqueViolation:
            pass  # it was stored before; the way below says so without an error
    ((answer,),) = connection.run(store.parsed["enqueue_one"], arguments)
    if answer:
        connection.opened(line, OpenBlock(answer >> 32, answer & 0xFFFFFFFF, began))
    return answer is not None


def _is_plain(message: Message) -> bool:
    """Due at once and for ever, and its id is one that we have made (others have a digest)."""
    return (
        message.eta is None
        and not message.delay
        and message.expires_in is None
        and message.expires_at is None
        and not message.digest
    )


def enqueue_in(
    store: Store, batch: Sequence[Message], connection: psycopg.Connection[Any], *, always: bool
) -> list[Enqueued]:
    """In the transaction that is open on ``connection``, or with its next statement's. ``always``:
    whoever waits now is not known, for it commits much later."""
    answers = []
    for part in _without_repeats(batch):
        arguments = columns.of_messages(part)
        stored = store.fetch(connection, "enqueue", now=store.now, always=always, **arguments)
        answers += _answers(part, stored)
    return answers


def enqueue_joined(store: Store, batch: Sequence[Message], connection: object) -> list[Enqueued]:
    """Store ``batch`` when the caller's transaction commits.

    Raises ConfigurationError for what is no connection of psycopg's, and StoreErrors, after which
    the transaction can only be rolled back (to a savepoint, where there is one).
    """
    with joined(store, connection) as theirs:
        return enqueue_in(store, batch, theirs, always=store.address.notify)


@contextmanager
def joined(store: Store, connection: object) -> Iterator[psycopg.Connection[Any]]:
    """The caller's ``connection``, with errors translated. Raises as ``enqueue_joined``."""
    if not isinstance(connection, psycopg.Connection):
        raise ConfigurationError(
            f"connection= is a {type(connection).__qualname__}; pass the psycopg.Connection under "
            "it (Django: connection.connection, SQLAlchemy: connection.connection.dbapi_connection)"
        )
    try:
        yield connection
    except psycopg.Error as error:
        raise store.connections.translate(error) from error


def _answers(batch: Sequence[Message], stored: Rows) -> list[Enqueued]:
    answers = [Enqueued(message.id, True) for message in batch]
    for item, job_id, same in stored:
        answers[item - 1] = Enqueued(job_id, False, same)
    return answers


def _without_repeats(batch: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """``batch`` in parts that name no id and no key twice: whether the second of two is stored then
    depends on what became of the first. Repeated ids alone, the statement sorts out by itself."""
    if all(message.idempotency_key is None for message in batch):
        yield batch
        return
    part: list[Message] = []
    seen: set[object] = set()
    for message in batch:
        names: set[object] = {message.id}
        if message.idempotency_key is not None:
            names.add((message.queue, message.idempotency_key))
        if not seen.isdisjoint(names):
            yield part
            part, seen = [], set()
        part.append(message)
        seen |= names
    yield part
