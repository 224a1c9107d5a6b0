"""Between the contract's types and what the scripts speak: msgpack, microseconds, raw bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from taskharbor.drivers.base import (
    Attempt,
    Enqueued,
    Exchange,
    Extended,
    Job,
    Outcome,
    Renewal,
    Settled,
    Want,
)
from taskharbor.lease import Guard, Reservation, Verdict
from taskharbor.message import DEFAULT_RETENTION, Message
from taskharbor.settlement import Settlement
from taskharbor.states import Move, Reason, State

_MICRO = 1_000_000.0
_NO_FENCE = -1
_packb = msgpack.packb
_unpackb = msgpack.unpackb
_new_tuple = tuple.__new__

# The letters and numbers of exchange.lua and jobs.lua.
_VERDICT_LETTERS = {
    Verdict.APPLIED: "a",
    Verdict.ALREADY: "l",
    Verdict.MISMATCH: "m",
    Verdict.EXPIRED: "e",
    Verdict.NOT_RUNNING: "r",
    Verdict.NOT_FOUND: "f",
    Verdict.STILL_VALID: "s",
}
_STATE_NUMBERS: dict[State | None, int] = {
    None: 0,
    State.SCHEDULED: 1,
    State.READY: 2,
    State.RUNNING: 3,
    State.SUCCEEDED: 4,
    State.DEAD: 5,
    State.CANCELLED: 6,
    State.BLOCKED: 7,
}
_SETTLED = {
    f"{letter}{number}".encode(): Settled(verdict, state)
    for verdict, letter in _VERDICT_LETTERS.items()
    for state, number in _STATE_NUMBERS.items()
}
_SUCCEEDED = b"a4"
_VERDICTS = {verdict.value.encode(): verdict for verdict in Verdict}
_STATES = {state.value.encode(): state for state in State}
_REASONS = {reason.value.encode(): reason for reason in Reason}


def pack(value: Any) -> bytes:
    # Redis' msgpack knows one kind of string, that of before 2013. surrogatepass: a job id may be
    # any string, also one that no store would ever hold.
    packed: bytes = _packb(value, use_bin_type=False, unicode_errors="surrogatepass")
    return packed


def unpack(data: bytes) -> Any:
    """What Redis' msgpack packed: every string is bytes."""
    return _unpackb(data, raw=True, use_list=False, strict_map_key=False)


def _unpack_spliced(data: bytes) -> Any:
    """What a script put together by hand, fragments of ours in it: str and bytes as they were."""
    return _unpackb(data, use_list=False, unicode_errors="surrogatepass")


def micros(seconds: float) -> int:
    return round(seconds * _MICRO)


def _seconds(value: float | None) -> float | None:
    return None if value is None or value is False else value / _MICRO


def _text(value: bytes) -> str:
    return value.decode(errors="surrogatepass")


def _present(value: Any) -> Any:
    return None if value is False else value


# --- enqueue ---------------------------------------------------------------------------------

_STR = [
    struct.pack("B", 0xA0 | size) if size < 32 else b"\xd9" + bytes([size]) for size in range(129)
]
_BYTE = [bytes([size]) for size in range(256)]
_BIN = [b"\xc4" + bytes([size]) for size in range(256)]
_BIN_LONG = struct.Struct(">BI")


class Packed(NamedTuple):
    """Messages as the scripts read them. Heads that are equal are sent once: most of a batch comes
    from one template. ``which``: the head's place for each message, False when all have the first.
    """

    heads: list[tuple[Any, ...]]
    which: list[int] | bool
    ids: list[str]
    fragments: list[bytes]


def packed_messages(batch: Sequence[Message]) -> Packed:
    heads: dict[tuple[Any, ...], int] = {}
    which, fragments = [], []
    names: dict[tuple[str, str], bytes] = {}
    for message in batch:
        job_id, task, body, _, queue, *_ = message
        which.append(heads.setdefault(message[4:], len(heads) + 1))
        middle = names.get((queue, task))
        if middle is None:
            middle = names[queue, task] = _packb(queue) + _packb(task)
        name = job_id.encode()
        size = len(body)
        start = _BIN[size] if size < 256 else _BIN_LONG.pack(0xC6, size)
        fragments.append(b"".join((_STR[len(name)], name, middle, start, body)))
    return Packed(
        [_head(batch[which.index(number)]) for number in heads.values()],
        which if len(heads) > 1 else False,
        [message.id for message in batch],
        fragments,
    )


_AT_ONCE = (0.0, None, None, None, None)
"""The fields of a message from delay to idempotency_key, when it may start now and has no key."""
_PLAIN = 1
_PRIORITY_STEP = 1 << 45
_MOST_SHAPES = 1024
_shapes: dict[tuple[Any, ...], tuple[bytes, bytes]] = {}


def pack_ready(message: Message) -> bytes | None:
    """The request of ``enqueue_one.lua``; None for a job that is not for it."""
    job_id, task, body, digest, queue, priority = message[:6]
    if digest or message[6:11] != _AT_ONCE:
        return None
    shape = _shapes.get((task, queue, priority, message[12])) or _shape(message)
    name = job_id.encode()
    size, start = len(body), len(name)
    return b"".join(
        (
            _BYTE[start],
            name,
            shape[0],
            _STR[start],
            name,
            shape[1],
            _BIN[size] if size < 256 else _BIN_LONG.pack(0xC6, size),
            body,
        )
    )


def _shape(message: Message) -> tuple[bytes, bytes]:
    """What the requests of jobs that differ in nothing but id and body have after either id."""
    queue = message.queue.encode()
    extra = b""
    if message.retention != DEFAULT_RETENTION:
        kept = [micros(seconds) for seconds in message.retention]
        extra = pack((kept, False, message.key_until, False, message.digest))
    named = bytes([len(queue)]) + queue
    first = struct.pack(">d", (100 - message.priority) * _PRIORITY_STEP)
    record = struct.pack(">bB", message.priority, _PLAIN) + named
    record += struct.pack(">H", len(extra)) + extra
    shape = named + first + record, _packb(message.queue) + _packb(message.task)
    if len(_shapes) >= _MOST_SHAPES:
        _shapes.clear()
    _shapes[message.task, message.queue, message.priority, message.retention] = shape
    return shape


def pack_messages(batch: Sequence[Message]) -> bytes:
    heads, which, ids, fragments = packed_messages(batch)
    digests = [message.digest for message in batch]
    distinct = len(set(ids)) == len(ids)
    return pack((heads, which, ids, digests if any(digests) else False, fragments, distinct))


def _head(message: Message) -> tuple[Any, ...]:
    until, retention = message.key_until, message.retention
    return (
        message.queue,
        message.priority,
        False if retention == DEFAULT_RETENTION else [micros(seconds) for seconds in retention],
        message.idempotency_key or False,
        until if isinstance(until, str) else micros(until),
        _micros_or_false(message.expires_at),
        _micros_or_false(message.eta),
        micros(message.delay),
        _micros_or_false(message.expires_in),
    )


def _micros_or_false(seconds: float | None) -> int | bool:
    return False if seconds is None else micros(seconds)


def enqueued(reply: bytes, batch: Sequence[Message]) -> list[Enqueued]:
    rows = unpack(reply)
    if rows is True:
        return [Enqueued(message.id, True) for message in batch]
    return [Enqueued(job_id.decode(), created, same) for job_id, created, same in rows]


# --- exchange --------------------------------------------------------------------------------


def pack_exchange(
    holder: str, settlements: Sequence[Settlement], want: Want | None, shard: int, shards: int
) -> bytes:
    columns = _columns(settlements) if settlements else False
    wanted = want and (tuple(dict.fromkeys(want.queues)), want.limit, want.lease_seconds)
    return pack((holder, columns, wanted or False, shard, shards))


def _columns(settlements: Sequence[Settlement]) -> tuple[Any, ...]:
    ids, fences, moves, reasons, delays, results, errors, losses, unknowns, guards, awaits = zip(
        *settlements, strict=True
    )
    count = len(ids)
    # A fence beyond 53 bits is none of ours, and Lua could take it for its neighbour.
    if not 0 <= min(fences) <= max(fences) < 1 << 53:
        fences = tuple(fence if 0 <= fence < 1 << 53 else _NO_FENCE for fence in fences)
    clean = (
        moves.count(Move.SUCCEED) == count
        and guards.count(Guard.VALID) == count
        and reasons.count(Reason.SUCCEEDED) == count
        and errors.count(None) == count
        and not any(losses)
    )
    others = (
        False
        if clean
        else (
            moves,
            reasons,
            delays,
            _false_for_none(errors),
            losses,
            unknowns,
            guards,
            _false_for_none(awaits) if any(awaits) else False,
        )
    )
    kept = False if results.count(None) == count else _false_for_none(results)
    return len(set(ids)) == count, ids, fences, kept, others


def _false_for_none(values: Sequence[Any]) -> list[Any]:
    # A nil would end a Lua array.
    return [False if value is None else value for value in values]


def exchanged(reply: bytes) -> Exchange:
    codes, rows, now, more, retired = _unpack_spliced(reply)
    count = len(codes) // 2
    if codes == _SUCCEEDED * count:
        settled = [_SETTLED[_SUCCEEDED]] * count
    else:
        settled = [_SETTLED[codes[i : i + 2]] for i in range(0, len(codes), 2)]
    return Exchange(settled, _reservations(rows), now, more, retired)


def _reservations(rows: Sequence[Any]) -> list[Reservation]:
    return [_new_tuple(Reservation, row) for row in rows]


def reservations(reply: bytes) -> list[Reservation]:
    return _reservations(_unpack_spliced(reply))


def pack_renewals(renewals: Sequence[Renewal], seconds: float) -> bytes:
    rows = [
        (
            job_id,
            fence if 0 <= fence < 1 << 53 else _NO_FENCE,
            *_false_for_none((progress, saved)),
        )
        for job_id, fence, progress, saved in renewals
    ]
    return pack((rows, seconds))


def extended(rows: Sequence[Any]) -> list[Extended]:
    return [Extended(_VERDICTS[verdict], _seconds(ends), asked) for verdict, ends, asked in rows]


# --- looking ---------------------------------------------------------------------------------


def outcomes(rows: Sequence[Any]) -> list[Outcome | None]:
    return [
        Outcome(_STATES[row[0]], _REASONS[row[1]], _present(row[2]), _present(row[3]))
        if row
        else None
        for row in rows
    ]


def job(row: tuple[Any, ...], *, brief: bool) -> Job:
    (
        job_id, _, enqueued_at, priority, key, expires, fragment, changing, progress, saved, error,
        result, history, flow,
    ) = row  # fmt: skip
    _, queue, task, body = read_fragment(fragment)
    state = _STATES[changing[b"s"]]
    running = state is State.RUNNING
    return Job(
        id=job_id.decode(),
        task=task,
        queue=queue,
        state=state,
        reason=_REASONS[changing[b"r"]],
        priority=priority,
        body=b"" if brief else body,
        enqueued_at=enqueued_at / _MICRO,
        due_at=changing[b"d"] / _MICRO,
        attempts=changing[b"a"],
        losses=changing[b"l"],
        fence=changing[b"f"] if running else None,
        holder=_text(changing[b"h"]) if running else None,
        reserved_at=_seconds(changing[b"t"]) if running else None,
        lease_expires_at=_seconds(changing[b"x"]) if running else None,
        finished_at=_seconds(changing.get(b"q")),
        expires_at=_seconds(expires),
        idempotency_key=None if key is False else key.decode(),
        cancel_requested=b"c" in changing,
        progress=_present(progress),
        saved=_present(saved),
        result=None if brief else _present(result),
        error=_present(error),
        history=() if brief else _history(changing, history, error),
        flow=None if flow is False else flow.decode(),
        awaits=changing[b"w"].decode() if b"w" in changing else None,
    )


def read_fragment(fragment: bytes) -> Any:
    unpacker = msgpack.Unpacker()
    unpacker.feed(fragment)
    return [unpacker.unpack() for _ in range(4)]


def _history(
    changing: dict[bytes, Any], entries: Sequence[bytes], last_error: Any
) -> tuple[Attempt, ...]:
    rows = [unpack(entry) for entry in entries]
    if b"g" in changing:
        *others, has_error = changing[b"g"]
        rows.append((*others, last_error if has_error else None))
    return tuple(
        Attempt(
            fence,
            number,
            _text(holder),
            started / _MICRO,
            ended / _MICRO,
            _REASONS[reason],
            _present(error),
        )
        for fence, number, holder, started, ended, reason, error in rows
    )
