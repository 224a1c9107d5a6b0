"""Bytes to values, from the form that wire.py describes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgpack

from taskharbor.codec import records
from taskharbor.codec.classes import UnknownClass
from taskharbor.codec.leaves import READERS
from taskharbor.codec.text import one_line
from taskharbor.codec.wire import (
    EMPTY_CALL,
    FROZENSET,
    MAP,
    MARK_PREFIX,
    MAX_DEPTH,
    SCALARS,
    SET,
    TUPLE,
    VERSION_BYTE,
    WIRE_VERSION,
)
from taskharbor.errors import DecodeError, UnknownWireVersion

# Bounds every length that the bytes declare by their own length.
_unpackb = msgpack.unpackb

# A client in another language may write a time as msgpack's own extension.
_TIMESTAMP_AS_DATETIME = 3

# The arguments of a call stand two levels deep.
_MAX_DEPTH = MAX_DEPTH + 2

Call = tuple[list[Any], dict[str, Any]]
Rebuild = Callable[[list[Any], dict[str, Any]], Call]


def decode(data: bytes) -> Any:
    """The value that :func:`encode` was given.

    Raises UnknownWireVersion for bytes of a newer version and DecodeError for anything else that
    is wrong with them; never another exception, whatever the bytes.
    """
    if not data or data[0] != WIRE_VERSION:
        raise _wrong_version(data)
    if MARK_PREFIX[0] in data and data.find(MARK_PREFIX) > 0:
        return _read_structures(data[1:], _Builder())
    try:
        return _unpackb(
            data[1:],
            strict_map_key=False,
            unicode_errors="surrogatepass",
            timestamp=_TIMESTAMP_AS_DATETIME,
            ext_hook=_read_leaf,
        )
    except DecodeError:
        raise
    except Exception as error:
        # Anything: what msgpack and the constructors of leaves raise.
        raise _corrupt(error) from error


def decode_all(encoded: Sequence[bytes]) -> list[Any]:
    """``decode()`` of each. Many small ones take a tenth of the time.

    Raises like ``decode()``, but for bytes that are wrong in two places, the second of which has
    just what the first one lacks: these become other values.
    """
    if len(encoded) > 1:
        # The version byte is a number to msgpack: with one before each value, all together are the
        # items of one array. Any that is not what it should be puts the numbers out of place.
        array = b"\xdd" + (2 * len(encoded)).to_bytes(4, "big")
        try:
            values = decode(VERSION_BYTE + array + b"".join(encoded))
        except DecodeError:
            values = []  # one by one it comes out which of them is wrong
        if values[::2] == [WIRE_VERSION] * len(encoded):
            return values[1::2]  # type: ignore[no-any-return]
    return [decode(data) for data in encoded]


def decode_call(data: bytes, *, rebuild: Rebuild | None = None) -> Call:
    """The ``(args, kwargs)`` that :func:`encode_call` was given. Raises like :func:`decode`.

    ``rebuild`` (of :func:`rebuilder`) converts them to what the parameters are annotated with. Only
    when it is given here, rather than called afterwards, can it also convert records whose class is
    not found under its name: a class that moved, or was sent by a script.
    """
    if data == EMPTY_CALL:
        return [], {}
    if rebuild is None:
        return _as_call(decode(data))
    try:
        call = _as_call(decode(data))
    except UnknownClass:
        return _rebuild_unresolved(data[1:], rebuild)
    return rebuild(*call)


def _read_structures(body: bytes, builder: _Builder) -> Any:
    try:
        value = _unpackb(
            body,
            strict_map_key=False,
            unicode_errors="surrogatepass",
            timestamp=_TIMESTAMP_AS_DATETIME,
            ext_hook=builder.read_extension,
        )
        return builder.build(value, 0)
    except DecodeError:
        raise
    except Exception as error:
        # Anything: what msgpack, the constructors of leaves and hashing raise.
        raise _corrupt(error) from error


def _rebuild_unresolved(body: bytes, rebuild: Rebuild) -> Call:
    builder = _Builder(keep_unknown=True)
    rebuilt = rebuild(*_as_call(_read_structures(body, builder)))
    for unresolved in builder.unresolved:
        if not unresolved.taken:
            raise unresolved.error
    return rebuilt


def _as_call(call: Any) -> Call:
    if type(call) is list and len(call) == 2:
        args, kwargs = call
        if type(args) is list and type(kwargs) is dict:
            for name in kwargs:
                if type(name) is not str:
                    raise DecodeError("the name of a keyword argument is not a str")
            return args, kwargs
    raise DecodeError("these bytes hold a value, but not the arguments of a call")


def _wrong_version(data: bytes) -> DecodeError:
    if not data:
        return DecodeError("no bytes to decode")
    if data[0] > WIRE_VERSION:
        return UnknownWireVersion(
            f"wire version {data[0]}, and this TaskHarbor reads up to {WIRE_VERSION}: upgrade it, "
            "or these bytes are none of its own"
        )
    return DecodeError(f"these bytes begin with {data[:1]!r}, which is no wire version")


def _corrupt(error: Exception) -> DecodeError:
    return DecodeError(f"corrupt or foreign bytes: {one_line(error)}")


class _Mark:
    """The first item of a structure."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


_LEAVES = READERS | {records.ENUM: records.read_enum, records.FLAG: records.read_flag}


def _read_leaf(code: int, data: bytes) -> Any:
    reader = _LEAVES.get(code)
    if reader is None:
        raise DecodeError(f"an extension of unknown code {code}: upgrade TaskHarbor")
    return reader(data)


class _Builder:
    """Makes structures of the arrays that begin with a mark.

    ``keep_unknown``: values of unknown classes become Unresolved, also listed in ``unresolved``,
    instead of an error.
    """

    def __init__(self, *, keep_unknown: bool = False) -> None:
        self.unresolved: list[records.Unresolved] = []
        self._keep_unknown = keep_unknown

    def read_extension(self, code: int, data: bytes) -> Any:
        if code in _STRUCTURES and not data:
            return _Mark(code)
        try:
            return _read_leaf(code, data)
        except UnknownClass as error:
            return self._set_aside(records.unresolved_enum(code, data, error), error)

    def build(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is list:
            if SCALARS.issuperset(map(type, value)):
                return value
            return self._build_list(value, depth + 1)
        if kind is dict:
            if _Mark in map(type, value):
                raise DecodeError("a mark where a key should be")
            if SCALARS.issuperset(map(type, value.values())):
                return value
            return dict(zip(value, self._build_items(value.values(), depth + 1), strict=True))
        if kind is _Mark:
            raise DecodeError("a mark where a value should be")
        return value

    def _build_list(self, value: list[Any], depth: int) -> Any:
        if type(value[0]) is not _Mark:
            return self._build_items(value, depth)
        items = self._build_items(value[1:], depth)
        code = value[0].code
        collection = _COLLECTIONS.get(code)
        return self._build_record(code, *items) if collection is None else collection(items)

    def _build_items(self, items: Iterable[Any], depth: int) -> list[Any]:
        if depth > _MAX_DEPTH:
            raise DecodeError(f"nested more than {MAX_DEPTH} levels deep")
        return [i if type(i) in SCALARS else self.build(i, depth) for i in items]

    def _build_record(self, code: int, name: str, *items: Any) -> Any:
        values = _pairs(items)
        try:
            return records.build_record(code, name, values)
        except UnknownClass as error:
            values.pop(records.ABOUT_MODEL, None)
            return self._set_aside(records.Unresolved(values, error), error)

    def _set_aside(self, unresolved: records.Unresolved, error: UnknownClass) -> records.Unresolved:
        if not self._keep_unknown:
            raise error
        self.unresolved.append(unresolved)
        return unresolved


def _pairs(items: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


_COLLECTIONS: dict[int, Callable[[list[Any]], Any]] = {
    TUPLE: tuple,
    SET: set,
    FROZENSET: frozenset,
    MAP: _pairs,
}
_STRUCTURES = {*_COLLECTIONS, records.DATACLASS, records.NAMEDTUPLE, records.MODEL}
