"""What travels between a client and the server of ``memory://name``: length-framed msgpack.

A frame is four bytes of length, big-endian, and that many bytes of msgpack. The contract's types
travel as extension types that hold their fields in order, so both ends must have the same fields:
``PROTOCOL`` names them, and the first frame of a connection compares it.

    client: [MAGIC, PROTOCOL]              server: ["ok", pid]        or ["error", type, message]
    client: [method, now, [arguments]]     server: ["ok", value]      or ["error", type, message]

Only processes of the same user reach the socket: the bytes are not from strangers, but they may be
broken, and then the connection is closed and nothing else.
"""

from __future__ import annotations

import dataclasses
import socket
import struct
import zlib
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgpack

from taskharbor.drivers import base, flows
from taskharbor.errors import PayloadTooLarge
from taskharbor.flow import plan
from taskharbor.lease import Guard, Reservation, Verdict
from taskharbor.message import Message, Retention
from taskharbor.settlement import Settlement
from taskharbor.states import Move, Reason, State

MAGIC = "taskharbor-memory"
MAX_FRAME_BYTES = 512 << 20
MAX_HELLO_BYTES = 1024

_RECORDS: tuple[Any, ...] = (
    Message,
    Retention,
    Settlement,
    Reservation,
    base.Attempt,
    base.Enqueued,
    base.Exchange,
    base.Extended,
    base.Job,
    base.JobFilter,
    base.Outcome,
    base.Page,
    base.Promoted,
    base.QueueInfo,
    base.Renewal,
    base.Settled,
    base.Term,
    base.Want,
    plan.Edge,
    plan.Flow,
    plan.Node,
    plan.Part,
    flows.EdgePage,
    flows.FlowEnqueued,
    flows.FlowInfo,
    flows.FlowNode,
    flows.FlowPage,
    flows.Input,
)
_ENUMS: tuple[type[StrEnum], ...] = (
    State,
    Reason,
    Move,
    Verdict,
    Guard,
    base.CancelVerdict,
    base.DeleteVerdict,
    base.RequeueVerdict,
    plan.EdgeKind,
    plan.FlowState,
)
_TUPLE, _FROZENSET, _BIG_INTEGER, _FIRST_FREE = range(4)


class BrokenFrame(Exception):
    """Bytes that are no frame of this protocol."""


def _field_names(record: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(record):
        return tuple(field.name for field in dataclasses.fields(record))
    names: tuple[str, ...] = record._fields
    return names


_RECORD_CODES = {record: code for code, record in enumerate(_RECORDS, _FIRST_FREE)}
_FIELDS = {record: _field_names(record) for record in _RECORDS}
_RECORD_OF = {code: record for record, code in _RECORD_CODES.items()}
_ENUM_CODES = {enum: code for code, enum in enumerate(_ENUMS, _FIRST_FREE + len(_RECORDS))}
_MEMBERS = {
    (code, member.value.encode()): member for enum, code in _ENUM_CODES.items() for member in enum
}
_SCHEMA = repr([(record.__name__, _FIELDS[record]) for record in _RECORDS] + sorted(_MEMBERS))
PROTOCOL = f"1-{base.CONTRACT_VERSION}-{zlib.crc32(_SCHEMA.encode()):08x}"


def _extend(value: Any) -> msgpack.ExtType:
    kind = type(value)
    code = _ENUM_CODES.get(kind)
    if code is not None:
        return msgpack.ExtType(code, value.value.encode())
    code = _RECORD_CODES.get(kind)
    if code is not None:
        return msgpack.ExtType(code, pack([getattr(value, name) for name in _FIELDS[kind]]))
    if kind is tuple:
        return msgpack.ExtType(_TUPLE, pack(list(value)))
    if kind is frozenset:
        return msgpack.ExtType(_FROZENSET, pack(list(value)))
    if kind is int:  # more than 64 bits: no fence of ours, but a question that may be asked
        return msgpack.ExtType(_BIG_INTEGER, str(value).encode())
    raise TypeError(f"a {kind.__name__} can't be sent to the memory server")


def _restore(code: int, data: bytes) -> Any:
    member = _MEMBERS.get((code, data))
    if member is not None:
        return member
    if code == _BIG_INTEGER:
        return int(data)
    fields = unpack(data)
    if code == _TUPLE:
        return tuple(fields)
    if code == _FROZENSET:
        return frozenset(fields)
    record = _RECORD_OF[code]
    return record(**dict(zip(_FIELDS[record], fields, strict=True)))


def pack(value: Any) -> bytes:
    # surrogatepass: a job id may be any string, also one that no store would ever hold.
    packed: bytes = msgpack.packb(
        value, default=_extend, strict_types=True, unicode_errors="surrogatepass"
    )
    return packed


def unpack(data: bytes) -> Any:
    """Raises BrokenFrame for anything that ``pack`` did not write."""
    try:
        return msgpack.unpackb(
            data, ext_hook=_restore, strict_map_key=False, unicode_errors="surrogatepass"
        )
    except BrokenFrame:
        raise
    except Exception as error:  # msgpack and the types' own checks raise many on hostile bytes
        raise BrokenFrame(f"{type(error).__name__}: {error}") from error


def send(connection: socket.socket, value: Any) -> None:
    """Raises PayloadTooLarge, before a byte is sent, and what the socket raises."""
    body = pack(value)
    if len(body) > MAX_FRAME_BYTES:
        raise PayloadTooLarge(
            f"a request of {len(body):,} bytes is over the memory server's limit of "
            f"{MAX_FRAME_BYTES:,}; send smaller batches"
        )
    connection.sendall(struct.pack(">I", len(body)) + body)


def receive(connection: socket.socket, *, most: int = MAX_FRAME_BYTES) -> Any:
    """The next frame's value. Raises EOFError when the other end closed the connection,
    BrokenFrame for rubbish, and what the socket raises."""
    (length,) = struct.unpack(">I", _exactly(connection.recv, 4))
    if length > most:
        raise BrokenFrame(f"a frame of {length:,} bytes, where {most:,} are allowed")
    return unpack(_exactly(connection.recv, length))


def _exactly(read: Callable[[int], bytes], length: int) -> bytes:
    chunk = read(min(length, 1 << 20))
    if len(chunk) == length:
        return chunk
    chunks = bytearray(chunk)
    while len(chunks) < length:
        if not chunk:
            raise EOFError("the connection was closed")
        chunk = read(min(length - len(chunks), 1 << 20))
        chunks += chunk
    return bytes(chunks)
