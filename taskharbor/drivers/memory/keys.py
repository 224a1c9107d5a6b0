"""Which job an idempotency key belongs to."""

from __future__ import annotations

import math

from taskharbor.drivers.memory.record import Record
from taskharbor.message import Message


class Keys:
    """Keys of records that are stored; scoped to their queues."""

    def __init__(self) -> None:
        self._owners: dict[tuple[str, str], tuple[str, float]] = {}

    def owner(self, now: float, message: Message) -> str | None:
        """The id of the job that holds the message's key."""
        if message.idempotency_key is None:
            return None
        owner, free_at = self._owners.get((message.queue, message.idempotency_key), (None, now))
        return owner if now < free_at else None

    def take(self, record: Record) -> None:
        """The record's key is its own now; nobody else holds it."""
        message = record.message
        if message.idempotency_key is not None:
            period = math.inf if isinstance(message.key_until, str) else message.key_until
            owner = (message.id, record.enqueued_at + period)
            self._owners[message.queue, message.idempotency_key] = owner

    def drop(self, record: Record) -> None:
        """Free the record's key, unless it belongs to another job by now."""
        message = record.message
        if message.idempotency_key is not None:
            key = (message.queue, message.idempotency_key)
            if self._owners.get(key, ("",))[0] == message.id:
                del self._owners[key]
