"""A job as it is enqueued, and the wire form of what only workers read.

A message has a *head* that drivers may read (queue, priority, key, times, retention) and an opaque
*body*: how to call the task and what to do when it fails. The body is written here, versioned by
its first byte, and read again by whoever executes or decides, never by a driver:

    b"\\x01" + msgpack([payload, timeout, policy, headers])
    b"\\x02" + msgpack([payload, timeout, policy, headers, wiring])

The second is for jobs that take results of others in their flow, and only for those: a release that
knows nothing of flows puts them back for one that does, and reads all others.
Policy travels as data, so that a reaper without the task's code decides like the worker would.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, NamedTuple, Self

import msgpack

from taskharbor import defaults, wiring
from taskharbor.errors import DecodeError, InvalidJob, PayloadTooLarge, UnknownWireVersion
from taskharbor.wiring import Wiring

BODY_VERSION = 2
_PLAIN_VERSION = 1
_VERSION_BYTE = bytes([_PLAIN_VERSION])
_WIRED_BYTE = bytes([BODY_VERSION])
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]*\Z")
_FIELDS_IN_BODY = 4
_BODY_START = _VERSION_BYTE + bytes([0x90 | _FIELDS_IN_BODY])  # a msgpack array of four
_WIRED_START = _WIRED_BYTE + bytes([0x90 | _FIELDS_IN_BODY + 1])
_packb = msgpack.packb
_unpackb = msgpack.unpackb
_new_tuple = tuple.__new__


class Policy(NamedTuple):
    """The retry and dead-letter policy of one job, as data.

    ``backoff`` is the packed form of a policy in :mod:`taskharbor.backoff`; None is the default
    one.
    """

    max_attempts: int = defaults.MAX_ATTEMPTS
    backoff: tuple[Any, ...] | None = None
    max_losses: int = defaults.MAX_LOSSES
    unknown_task_seconds: float = defaults.UNKNOWN_TASK_SECONDS


DEFAULT_POLICY = Policy()


class Call(NamedTuple):
    """What a body says. ``payload`` is the codec's ``encode_call`` form, still encoded."""

    payload: bytes
    timeout: float | None = defaults.TIMEOUT_SECONDS
    policy: Policy = DEFAULT_POLICY
    headers: dict[str, Any] = {}  # noqa: RUF012 - never written to; a NamedTuple default
    wiring: Wiring | None = None


class Retention(NamedTuple):
    """Seconds that a job's record is kept after each terminal state; 0 = gone at once."""

    succeeded: float = defaults.KEEP_SUCCEEDED_SECONDS
    cancelled: float = defaults.KEEP_CANCELLED_SECONDS
    dead: float = defaults.KEEP_DEAD_SECONDS


DEFAULT_RETENTION = Retention()


class _Fields(NamedTuple):
    id: str
    task: str
    body: bytes
    digest: bytes = b""
    queue: str = defaults.QUEUE
    priority: int = 0
    delay: float = 0.0
    eta: float | None = None
    expires_in: float | None = None
    expires_at: float | None = None
    idempotency_key: str | None = None
    key_until: Literal["record", "terminal"] | float = "record"
    retention: Retention = DEFAULT_RETENTION


class Message(_Fields):
    """One job to be stored. Times are relative seconds that the store adds to its clock, or
    absolute (``eta``, ``expires_at``: seconds since the epoch) where the user gave a date.

    ``digest`` is a hash of task and payload, kept so that a caller can tell a replay of the same
    request from a different request under the same key or id. Empty where neither was given.

    Raises InvalidJob, naming the field and the allowed range, from the constructor. A tuple and not
    a frozen dataclass: :class:`Template` makes one in 0.3 µs, where that took 4.
    """

    __slots__ = ()

    def __new__(
        cls,
        id: str,  # noqa: A002 - the field's name
        task: str,
        body: bytes,
        digest: bytes = b"",
        queue: str = defaults.QUEUE,
        priority: int = 0,
        delay: float = 0.0,
        eta: float | None = None,
        expires_in: float | None = None,
        expires_at: float | None = None,
        idempotency_key: str | None = None,
        key_until: Literal["record", "terminal"] | float = "record",
        retention: Retention = DEFAULT_RETENTION,
    ) -> Self:
        times = (delay, eta, expires_in, expires_at)
        fields = (id, task, body, digest, queue, priority, *times, idempotency_key, key_until)
        self = super().__new__(cls, *fields, retention)
        self._check()
        return self

    def _check(self) -> None:
        check_name("job id", self.id)
        check_name("task", self.task)
        check_name("queue", self.queue)
        check_priority(self.priority)
        if self.delay != 0.0:
            check_seconds("delay", self.delay, most=defaults.MAX_DELAY_SECONDS)
        if self.idempotency_key is not None:
            check_key(self.idempotency_key)
        if self.retention is not DEFAULT_RETENTION:
            for name, value in self.retention._asdict().items():
                check_seconds(f"retention for {name} jobs", value, most=defaults.MAX_DELAY_SECONDS)
        if self.eta is not None or self.expires_in is not None or self.expires_at is not None:
            self._check_times()
        if self.key_until not in ("record", "terminal"):
            check_seconds("key_until", self.key_until, most=defaults.MAX_DELAY_SECONDS)

    def _check_times(self) -> None:
        for name in ("eta", "expires_in", "expires_at"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
                raise InvalidJob(f"{name} is {value!r}; it must be a finite number of seconds")
        if self.eta is not None and self.delay:
            raise InvalidJob("a job has either a delay or an eta, not both; drop one of them")
        if self.expires_in is not None and self.expires_at is not None:
            raise InvalidJob(
                "a job has either expires_in or expires_at, not both; drop one of them"
            )
        if self.expires_in is not None and self.expires_in <= 0:
            raise InvalidJob(
                f"expires_in is {self.expires_in!r}; a job must be given more than 0 "
                "seconds to start"
            )

    def due_at(self, now: float) -> float:
        """When the job may start, given the store's ``now``. A past eta means now."""
        return max(now, self.eta) if self.eta is not None else now + self.delay

    def expiry(self, now: float) -> float | None:
        """When the job is no longer worth starting, given the store's ``now``; None = never."""
        return now + self.expires_in if self.expires_in is not None else self.expires_at


class Template:
    """What the jobs of one task with the same options share, checked and encoded once.

    ``pattern`` has the head; its id and body are placeholders. ``call`` has everything of the body
    but the payload. Raises like :class:`Message` and :func:`write_body`.
    """

    __slots__ = ("_after_payload", "_head", "_limit", "_task")

    def __init__(self, pattern: Message, call: Call, *, limit: int | None) -> None:
        self._task = pattern.task
        self._head = tuple(pattern)[4:]
        whole = write_body(call._replace(payload=b""), limit=limit)
        self._after_payload = whole[len(_BODY_START) + len(_packb(b"")) :]
        self._limit = limit

    def wired(self, job_id: str, payload: bytes, given: Wiring | None) -> Message:
        """``message()`` for a job of a flow."""
        if given is None:
            return self.message(job_id, payload)
        start = _WIRED_START + _packed_bytes(payload)
        body = start + self._after_payload + _packb(wiring.pack(given))
        return self._whole(job_id, body, b"")

    def message(self, job_id: str, payload: bytes, digest: bytes = b"") -> Message:
        """The message of one job. ``job_id`` is not checked again: it is a driver's, or was
        checked. Raises PayloadTooLarge."""
        return self._whole(
            job_id, _BODY_START + _packed_bytes(payload) + self._after_payload, digest
        )

    def _whole(self, job_id: str, body: bytes, digest: bytes) -> Message:
        if self._limit is not None and len(body) > self._limit:
            raise _too_large(body, self._limit)
        return _new_tuple(Message, (job_id, self._task, body, digest, *self._head))


def _packed_bytes(data: bytes) -> bytes:
    """``msgpack.packb(data)`` in a fifth of its time: that makes a packer and its buffer first."""
    size = len(data)
    if size < 1 << 8:
        return b"\xc4%c%b" % (size, data)
    packed: bytes = _packb(data)
    return packed


def write_body(call: Call, *, limit: int | None = defaults.MAX_PAYLOAD_BYTES) -> bytes:
    """The wire form of ``call``. Raises PayloadTooLarge when it is over ``limit`` bytes."""
    policy = None if call.policy == DEFAULT_POLICY else call.policy
    fields = (call.payload, call.timeout, policy, call.headers or None)
    if call.wiring is None:
        body: bytes = _VERSION_BYTE + _packb(fields)
    else:
        body = _WIRED_BYTE + _packb((*fields, wiring.pack(call.wiring)))
    if limit is not None and len(body) > limit:
        raise _too_large(body, limit)
    return body


def _too_large(body: bytes, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the job's arguments take {len(body):,} bytes, over the limit of {limit:,}; store "
        "the data elsewhere and pass a reference, or raise max_payload_bytes"
    )


def read_body(body: bytes) -> Call:
    """The call that ``write_body`` wrote.

    Raises UnknownWireVersion for a newer version (a later release knows it: worth waiting for)
    and DecodeError for anything else that is not a body.
    """
    plain = body[:1] == _VERSION_BYTE
    if not plain and body[:1] != _WIRED_BYTE:
        raise _not_a_body(body)
    try:
        fields = _unpackb(memoryview(body)[1:], use_list=False)
        payload, timeout, policy, headers = fields if plain else fields[:-1]
        call = Call(
            payload,
            timeout,
            DEFAULT_POLICY if policy is None else _policy(policy),
            headers or {},
            None if plain else wiring.unpack(fields[-1]),
        )
    except Exception as error:  # msgpack raises a dozen types on hostile bytes
        raise DecodeError(
            f"the job's stored body is corrupt ({type(error).__name__}: {error})"
        ) from error
    if (
        type(payload) is not bytes
        or not isinstance(timeout, int | float | None)
        or type(call.headers) is not dict
    ):
        raise DecodeError("the job's stored body is corrupt (fields of the wrong type)")
    return call


def _policy(fields: Any) -> Policy:
    policy = Policy(*fields)
    for value in (policy.max_attempts, policy.max_losses, policy.unknown_task_seconds):
        if not isinstance(value, int | float):
            raise TypeError(f"a policy with {value!r} for a number")
    return policy


def _not_a_body(body: bytes) -> DecodeError:
    if body and BODY_VERSION < body[0] < 0x20:
        return UnknownWireVersion(
            f"the job was written in wire version {body[0]}, this TaskHarbor reads "
            f"up to {BODY_VERSION}; upgrade the workers"
        )
    return DecodeError("the job's stored body is corrupt (no known version byte)")


def check_name(what: str, name: object) -> None:
    """A job id, task or queue name: 1 to 128 of letters, digits and ``_ . : -``, beginning
    with a letter, digit or underscore."""
    if type(name) is not str or len(name) > defaults.MAX_NAME_CHARS or not _NAME.match(name):
        raise InvalidJob(
            f"{what} {name!r} is not a valid name; use 1 to {defaults.MAX_NAME_CHARS} "
            "letters, digits, '_', '.', ':' or '-', beginning with a letter, digit or '_'"
        )


def check_priority(priority: object) -> None:
    if type(priority) is not int or not -defaults.MAX_PRIORITY <= priority <= defaults.MAX_PRIORITY:
        raise InvalidJob(
            f"priority is {priority!r}; use a whole number from -{defaults.MAX_PRIORITY} (last) to "
            f"{defaults.MAX_PRIORITY} (first)"
        )


def check_seconds(what: str, seconds: object, *, most: float) -> None:
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 0 <= seconds <= most
    ):
        raise InvalidJob(f"{what} is {seconds!r}; use a number of seconds from 0 to {most:g}")


def check_key(key: object) -> None:
    """1 to 255 printable characters: every store can hold it and every log can show it."""
    if type(key) is not str or not 0 < len(key) <= defaults.MAX_KEY_CHARS or not key.isprintable():
        raise InvalidJob(
            f"idempotency_key {key!r} can't be used; use 1 to {defaults.MAX_KEY_CHARS} "
            "printable characters"
        )
