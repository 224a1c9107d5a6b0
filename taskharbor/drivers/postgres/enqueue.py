"""Storing messages: a statement for a batch, in a transaction of ours or the caller's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from taskharbor.drivers.base import Enqueued
from taskharbor.drivers.postgres import columns
from taskharbor.drivers.postgres.statements import Rows
from taskharbor.drivers.postgres.store import Store
from taskharbor.errors import ConfigurationError
from taskharbor.message import Message


def enqueue(store: Store, batch: Sequence[Message]) -> list[Enqueued]:
    if len(batch) == 1 and batch[0].idempotency_key is None:
        # A statement of its own: arrays of one cost delay() as much again as all the rest.
        ((made,),) = store.rows("enqueue_one", now=store.now, **columns.of_message(batch[0]))
        if made:
            return [Enqueued(batch[0].id, True)]
    first, *others = _without_repeats(batch)
    arguments = columns.of_messages(first)
    if not others:
        return _answers(first, store.rows("enqueue", now=store.now, always=False, **arguments))

    def step(connection: psycopg.Connection) -> list[Enqueued]:
        with connection.transaction():
            return enqueue_in(store, batch, connection, always=False)

    return store.call(step)


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
        return enqueue_in(store, batch, theirs, always=True)


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
