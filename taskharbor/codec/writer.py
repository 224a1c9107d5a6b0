"""Values to bytes, in the form that wire.py describes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

import msgpack

from taskharbor.codec import records
from taskharbor.codec.leaves import INT, WRITERS, late_writer, write_int
from taskharbor.codec.refusal import Refused, step, unsupported
from taskharbor.codec.wire import (
    EMPTY_CALL,
    FROZENSET,
    MAP,
    MAX_DEPTH,
    SCALARS,
    SET,
    TUPLE,
    VERSION_BYTE,
)
from taskharbor.errors import EncodeError, PayloadTooLarge

_Packer = msgpack.Packer
_FIRST_BUFFER = 1024
_SETTINGS = {
    "arguments": "max_payload_bytes",
    "result": "max_result_bytes",
    "saved value": "max_result_bytes",
}
_ExtType = msgpack.ExtType


def encode(value: object, *, limit: int | None = None, what: str = "value") -> bytes:
    """``value`` as bytes; at most ``limit`` of them.

    Raises EncodeError with the path to what can't travel and what to do, and PayloadTooLarge;
    ``what`` names the value in both ("argument", "result").
    """
    try:
        if type(value) not in SCALARS:
            value = _wire(value, 0)
        data: bytes = VERSION_BYTE + _pack(value)
    except Refused as refused:
        root = what if what.isidentifier() and refused.path else ""
        raise EncodeError(refused.describe(what, root)) from refused
    except (RuntimeError, ValueError) as error:
        # Changed by another thread meanwhile, or over 4 GiB.
        raise EncodeError(f"can't encode {what}: {error}") from error
    return _within(limit, data, what)


def encode_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], *, limit: int | None = None
) -> bytes:
    """The arguments of a call as bytes. Raises like :func:`encode`."""
    if not args and not kwargs:
        return EMPTY_CALL
    try:
        if _is_plain(args, kwargs):
            data = VERSION_BYTE + _pack([list(args), kwargs])
        else:
            data = VERSION_BYTE + _pack([_wire_args(args), _wire_kwargs(kwargs)])
    except Refused as refused:
        raise EncodeError(refused.describe("argument", "")) from refused
    except (RuntimeError, ValueError) as error:
        raise EncodeError(f"can't encode arguments: {error}") from error
    return data if limit is None or len(data) <= limit else _within(limit, data, "arguments")


def _is_plain(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    for value in args:
        if type(value) not in SCALARS:
            return False
    for name, value in kwargs.items():
        if type(value) not in SCALARS or type(name) is not str:
            return False
    return True


def _wire_args(args: tuple[Any, ...]) -> list[Any]:
    try:
        return _wire_items(args, 0)
    except Refused as refused:
        refused.path.append("args")
        raise


def _wire_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    wire = {}
    key = None
    try:
        for key, value in kwargs.items():
            if type(key) is not str:
                raise Refused(f"has a name that is not a str but a {type(key)!r}")
            wire[key] = _wire(value, 0)
    except Refused as refused:
        refused.path += [step(key), "kwargs"]
        raise
    return wire


def _within(limit: int | None, data: bytes, what: str) -> bytes:
    if limit is None or len(data) <= limit:
        return data
    verb = "take" if what.endswith("s") else "takes"
    or_raise = f", or raise {_SETTINGS[what]}" if what in _SETTINGS else ""
    raise PayloadTooLarge(
        f"the {what} {verb} {len(data):,} bytes encoded, over the limit of {limit:,}; store the "
        f"data elsewhere and pass a reference{or_raise}"
    )


# --- to the wire ------------------------------------------------------------------------------


def _pack(wire: object) -> bytes:
    # A fresh packer per call: a shared one keeps its largest buffer forever, and a finalizer that
    # runs in mid-call could re-enter it. A small first buffer halves what packb() takes.
    try:
        return _Packer(  # type: ignore[no-any-return]
            strict_types=True, default=_write_huge_int, buf_size=_FIRST_BUFFER
        ).pack(wire)
    except UnicodeEncodeError:
        # Lone surrogates (file names from os.listdir) travel as they are.
        return _Packer(  # type: ignore[no-any-return]
            strict_types=True, default=_write_huge_int, unicode_errors="surrogatepass"
        ).pack(wire)


def _write_huge_int(value: object) -> Any:
    """All that is left for msgpack to ask about once ``_wire`` has seen a value."""
    if type(value) is not int:
        raise unsupported(value)
    return _ExtType(INT, write_int(value))


def _wire(value: Any, depth: int) -> Any:
    """``value`` in msgpack's own types and extensions. Shares what needs no change."""
    kind = type(value)
    if kind in SCALARS:
        return value
    if depth >= MAX_DEPTH:
        raise Refused(f"is nested more than {MAX_DEPTH} levels deep, or contains itself")
    if kind is list:
        return value if SCALARS.issuperset(map(type, value)) else _wire_items(value, depth + 1)
    if kind is dict:
        if not SCALARS.issuperset(map(type, value)):
            return _wire_map(value, depth + 1)
        plain = SCALARS.issuperset(map(type, value.values()))
        return value if plain else _wire_dict(value, depth + 1)
    if kind is tuple:
        return _wire_items(value, depth + 1, [_ExtType(TUPLE, b"")])
    writer = WRITERS.get(kind) or late_writer(kind)
    if writer is not None:
        return _ExtType(writer[0], writer[1](value))
    if kind is set or kind is frozenset:
        return _wire_set(value, depth + 1)
    if isinstance(value, Enum):
        return _ExtType(*records.write_enum(value))
    return _wire_record(value, kind, depth + 1)


def _wire_items(items: Iterable[Any], depth: int, wire: list[Any] | None = None) -> list[Any]:
    wire = [] if wire is None else wire
    marks = len(wire)
    try:
        for item in items:
            wire.append(item if type(item) in SCALARS else _wire(item, depth))
    except Refused as refused:
        refused.path.append(f"[{len(wire) - marks}]")
        raise
    return wire


def _wire_dict(value: dict[Any, Any], depth: int) -> dict[Any, Any]:
    wire = {}
    key = None
    try:
        for key, item in value.items():
            wire[key] = _wire(item, depth)
    except Refused as refused:
        refused.path.append(step(key))
        raise
    return wire


def _wire_map(value: dict[Any, Any], depth: int) -> list[Any]:
    wire: list[Any] = [_ExtType(MAP, b"")]
    place = ""
    try:
        for key, item in value.items():
            place = " key "
            wire.append(_wire(key, depth))
            place = ""
            wire.append(_wire(item, depth))
    except Refused as refused:
        refused.path.append(place + step(key))
        raise
    return wire


def _wire_set(value: set[Any] | frozenset[Any], depth: int) -> list[Any]:
    try:
        items = [_wire(item, depth) for item in value]
    except Refused as refused:
        refused.path.append("{…}")
        raise
    mark = _ExtType(SET if type(value) is set else FROZENSET, b"")
    return [mark, *sorted(items, key=_pack)]


def _wire_record(value: object, kind: type, depth: int) -> list[Any]:
    shape = records.shape_of(kind)
    if shape is None:
        raise unsupported(value)
    wire: list[Any] = [_ExtType(shape.code, b""), shape.name]
    name = ""
    try:
        for name, item in shape.values(value):
            wire += (name, _wire(item, depth))
    except Refused as refused:
        if name:
            refused.path.append(f".{name}")
        raise
    return wire
