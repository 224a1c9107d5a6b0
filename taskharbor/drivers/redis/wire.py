"""Between the contract's types and what the scripts speak: msgpack, microseconds, raw bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgpack

from taskharbor.drivers.base import Attempt, Job
from taskharbor.lease import Reservation
from taskharbor.message import DEFAULT_RETENTION, Message
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

_HEADER = struct.Struct(">ddH")  # order, enqueued_at, length of the head
_MICRO = 1_000_000.0
_NO_FENCE = -1


def pack(value: Any) -> bytes:
    # Redis' msgpack knows one kind of string, that of before 2013. surrogatepass: a job id may be
    # any string, also one that no store would ever hold.
    packed: bytes = msgpack.packb(value, use_bin_type=False, unicode_errors="surrogatepass")
    return packed


def unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=True, use_list=False, strict_map_key=False)


def channel(name: str) -> bytes:
    return name.encode(errors="surrogatepass")


def micros(seconds: float) -> int:
    return round(seconds * _MICRO)


def pack_messages(batch: Sequence[Message]) -> bytes:
    return pack([_message(message) for message in batch])


def _message(message: Message) -> tuple[Any, ...]:
    until = message.key_until
    retention = message.retention
    head = (
        message.queue,
        message.priority,
        None if retention is DEFAULT_RETENTION else [micros(seconds) for seconds in retention],
        message.idempotency_key,
        until if isinstance(until, str) else micros(until),
        None if message.expires_at is None else micros(message.expires_at),
    )
    return (
        message.id,
        pack(head),
        pack((message.task, message.digest, message.body)),
        message.digest,
        None if message.eta is None else micros(message.eta),
        micros(message.delay),
        None if message.expires_in is None else micros(message.expires_in),
    )


def pack_exchange(holder: str, settlements: Sequence[Settlement], want: Any) -> bytes:
    try:
        return pack((holder, settlements, want))
    except OverflowError:
        # No fence of ours is beyond 64 bits; any that is matches nothing.
        return pack((holder, [_small_fence(item) for item in settlements], want))


def _small_fence(item: Settlement) -> Settlement:
    return item if 0 <= item.fence < 1 << 63 else item._replace(fence=_NO_FENCE)


def reservation(row: tuple[Any, ...]) -> Reservation:
    job_id, raw, fence, attempt, losses, reserved, lease_end, unknown, saved, asked, holder = row
    _, enqueued, length = _HEADER.unpack_from(raw)
    head = unpack(raw[18 : 18 + length])
    task, _, body = unpack(raw[18 + length :])
    return Reservation(
        job_id.decode(),
        head[0].decode(),
        task.decode(),
        body,
        fence,
        attempt,
        losses,
        head[1],
        enqueued / _MICRO,
        reserved / _MICRO,
        lease_end / _MICRO,
        _seconds(unknown),
        saved or None,
        asked,
        holder.decode(),
    )


def job(row: tuple[Any, ...], *, brief: bool) -> Job:
    job_id, raw, changing, progress, saved, history = row
    _, enqueued, length = _HEADER.unpack_from(raw)
    queue, priority, _, key, _, expires = unpack(raw[18 : 18 + length])
    task, _, body = unpack(raw[18 + length :])
    state = State(changing[b"s"].decode())
    running = state is State.RUNNING
    return Job(
        id=job_id.decode(),
        task=task.decode(),
        queue=queue.decode(),
        state=state,
        reason=Reason(changing[b"r"].decode()),
        priority=priority,
        body=b"" if brief else body,
        enqueued_at=enqueued / _MICRO,
        due_at=changing[b"d"] / _MICRO,
        attempts=changing[b"a"],
        losses=changing[b"l"],
        fence=changing[b"f"] if running else None,
        holder=changing[b"h"].decode() if running else None,
        reserved_at=_seconds(changing[b"t"]) if running else None,
        lease_expires_at=_seconds(changing[b"x"]) if running else None,
        finished_at=_seconds(changing.get(b"q")),
        expires_at=None if changing.get(b"e") else _seconds(expires),
        idempotency_key=None if not key else key.decode(),
        cancel_requested=b"c" in changing,
        progress=progress or None,
        saved=saved or None,
        result=None if brief else changing.get(b"R"),
        error=changing.get(b"E"),
        history=() if brief else _history(changing, history),
    )


def _history(changing: dict[bytes, Any], entries: Sequence[bytes]) -> tuple[Attempt, ...]:
    rows = [unpack(entry) for entry in entries]
    if b"g" in changing:
        rows.append(changing[b"g"])
    return tuple(
        Attempt(
            fence,
            number,
            holder.decode(),
            started / _MICRO,
            ended / _MICRO,
            Reason(reason.decode()),
            error or None,
        )
        for fence, number, holder, started, ended, reason, error in rows
    )


def _seconds(value: float | None) -> float | None:
    return None if value is None or value is False else value / _MICRO


def pack_renewals(renewals: Sequence[Any], seconds: float) -> bytes:
    try:
        return pack((renewals, seconds))
    except OverflowError:
        small = [
            item if 0 <= item.fence < 1 << 63 else item._replace(fence=_NO_FENCE)
            for item in renewals
        ]
        return pack((small, seconds))
