"""Values that travel as one msgpack extension with no other value inside.

Every extension is exact: the decoded value has the type, the value and the fine print (fold, zone
key, exponent, sign of zero) of the one that was encoded. Multi-byte numbers are big-endian.

Types from modules that are slow to import (decimal, uuid, zoneinfo, pathlib, fractions) are found
by name: a value of such a type exists only where its module is loaded, and a decoder imports it
only when such a value arrives.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any

from taskharbor.codec.refusal import Refused
from taskharbor.errors import DecodeError

if TYPE_CHECKING:
    from fractions import Fraction
    from pathlib import PurePath
    from uuid import UUID

_DATETIME = struct.Struct(">HBBBBBIB")
_DATE = struct.Struct(">HBB")
_TIME = struct.Struct(">BBBIB")
_TIMEDELTA = struct.Struct(">iII")
_OFFSET = struct.Struct(">q")
_COMPLEX = struct.Struct(">dd")
_MICROSECOND = timedelta(microseconds=1)

# A Fraction is reduced when it is made, which takes time in the square of its length.
_LONGEST_FRACTION = 8192

# ZoneInfo() turns a key into a file path and into the name of a package under tzdata.
_ZONE_KEY = re.compile(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*\Z")


def write_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, signed=True)


def _read_int(data: bytes) -> int:
    return int.from_bytes(data, signed=True)


def write_text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def read_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


# --- time -------------------------------------------------------------------------------------


def _write_datetime(value: datetime) -> bytes:
    fields = _DATETIME.pack(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.fold,
    )
    return fields + _write_zone(value.tzinfo)


def _read_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, micro, fold = _DATETIME.unpack_from(data)
    zone = _read_zone(data[_DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, micro, tzinfo=zone, fold=fold)


def _write_date(value: date) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _read_date(data: bytes) -> date:
    return date(*_DATE.unpack(data))


def _write_time(value: time) -> bytes:
    fields = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return fields + _write_zone(value.tzinfo)


def _read_time(data: bytes) -> time:
    hour, minute, second, micro, fold = _TIME.unpack_from(data)
    return time(hour, minute, second, micro, tzinfo=_read_zone(data[_TIME.size :]), fold=fold)


def _write_timedelta(value: timedelta) -> bytes:
    return _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def _read_timedelta(data: bytes) -> timedelta:
    days, seconds, micro = _TIMEDELTA.unpack(data)
    return timedelta(days, seconds, micro)


def _write_zone(zone: tzinfo | None) -> bytes:
    """Empty: naive. ``o``: a fixed offset in microseconds, and its name if it has one of its own.
    ``z``: an IANA key."""
    if zone is None:
        return b""
    if type(zone) is timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        own_name = "" if name == timezone(offset).tzname(None) else name
        return b"o" + _OFFSET.pack(offset // _MICROSECOND) + write_text(own_name)
    key = getattr(zone, "key", None)
    is_zone_info = type(zone) is getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None)
    if is_zone_info and isinstance(key, str) and _ZONE_KEY.match(key):
        return b"z" + write_text(key)
    raise Refused(
        f"has a time zone ({type(zone)!r}) that can't travel; use datetime.timezone or "
        "zoneinfo.ZoneInfo('Area/City')"
    )


def _read_zone(data: bytes) -> tzinfo | None:
    if not data:
        return None
    if data[:1] == b"o":
        offset = timedelta(microseconds=_OFFSET.unpack_from(data, 1)[0])
        name = read_text(data[1 + _OFFSET.size :])
        return timezone(offset, name) if name else timezone(offset)
    if data[:1] != b"z":
        raise DecodeError(f"a time zone of unknown form {data[:1]!r}")
    key = read_text(data[1:])
    from zoneinfo import ZoneInfo

    try:
        if _ZONE_KEY.match(key):
            return ZoneInfo(key)
    except (LookupError, ValueError, OSError) as error:
        raise DecodeError(
            f"no data for the time zone {key!r} on this machine; install tzdata"
        ) from error
    raise DecodeError(f"{key[:60]!r} is not the key of a time zone")


# --- numbers, identifiers, paths --------------------------------------------------------------


def _write_complex(value: complex) -> bytes:
    return _COMPLEX.pack(value.real, value.imag)


def _read_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _write_decimal(value: object) -> bytes:
    return str(value).encode("ascii")


def _read_decimal(data: bytes) -> object:
    from decimal import Decimal, InvalidOperation

    try:
        return Decimal(data.decode("ascii"))
    except InvalidOperation as error:
        raise DecodeError(f"{data[:40]!r} is not a Decimal") from error


def _write_fraction(value: Fraction) -> bytes:
    top, bottom = write_int(value.numerator), write_int(value.denominator)
    if len(top) + len(bottom) > _LONGEST_FRACTION:
        raise Refused(f"is a Fraction of more than {_LONGEST_FRACTION:,} bytes")
    return len(top).to_bytes(4) + top + bottom


def _read_fraction(data: bytes) -> Fraction:
    from fractions import Fraction

    if len(data) > 4 + _LONGEST_FRACTION:
        raise DecodeError(f"a Fraction of more than {_LONGEST_FRACTION:,} bytes")
    end = 4 + int.from_bytes(data[:4])
    return Fraction(_read_int(data[4:end]), _read_int(data[end:]))


def _write_uuid(value: UUID) -> bytes:
    return value.bytes


def _read_uuid(data: bytes) -> UUID:
    from uuid import UUID

    return UUID(bytes=data)


def _write_path(value: PurePath) -> bytes:
    return type(value).__name__.encode() + b"\0" + write_text(str(value))


def _read_path(data: bytes) -> PurePath:
    import pathlib

    flavour, _, text = data.partition(b"\0")
    name = flavour.decode("ascii")
    if name not in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
        raise DecodeError(f"{name!r} is not a kind of path")
    try:
        path: PurePath = getattr(pathlib, name)(read_text(text))
    except NotImplementedError as error:
        raise DecodeError(
            f"a {name} can't be made on this system; pass a str or a PurePath between systems"
        ) from error
    return path


# --- the table --------------------------------------------------------------------------------

Writer = Callable[[Any], bytes]

# A released code is never given another meaning.
WRITERS: dict[type, tuple[int, Writer]] = {
    complex: (2, _write_complex),
    datetime: (6, _write_datetime),
    date: (7, _write_date),
    time: (8, _write_time),
    timedelta: (9, _write_timedelta),
    bytearray: (10, bytes),
}
"""For each type, its extension code and how to write it. Grows by :func:`late_writer`."""

INT = 1

READERS: dict[int, Callable[[bytes], Any]] = {
    INT: _read_int,
    2: _read_complex,
    3: _read_decimal,
    4: _read_fraction,
    5: _read_uuid,
    6: _read_datetime,
    7: _read_date,
    8: _read_time,
    9: _read_timedelta,
    10: bytearray,
    11: _read_path,
}

_LATE: dict[str, tuple[str, int, Writer]] = {
    "Decimal": ("decimal", 3, _write_decimal),
    "Fraction": ("fractions", 4, _write_fraction),
    "UUID": ("uuid", 5, _write_uuid),
    "PosixPath": ("pathlib", 11, _write_path),
    "WindowsPath": ("pathlib", 11, _write_path),
    "PurePosixPath": ("pathlib", 11, _write_path),
    "PureWindowsPath": ("pathlib", 11, _write_path),
}


def late_writer(kind: type) -> tuple[int, Writer] | None:
    """The writer of a type whose module is loaded only by those who use it; None if it has none."""
    module_name, code, writer = _LATE.get(kind.__name__, ("", 0, bytes))
    if getattr(sys.modules.get(module_name), kind.__name__, None) is not kind:
        return None
    WRITERS[kind] = (code, writer)
    return WRITERS[kind]
