"""What commands print: JSON for programs, tables for people; errors go to standard error."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from typing import Any

import click

from taskharbor.errors import TaskHarborError

JSON_ASKED = "taskharbor.json"


def print_json(value: Any) -> None:
    """One JSON document, in ASCII: any bytes of an id that was asked for can be said again. On a
    terminal indented."""
    click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None))


def print_error(ctx: click.Context, error: TaskHarborError) -> None:
    """On standard error: ``Error: …``, or with ``--json`` an object."""
    if ctx.find_root().meta.get(JSON_ASKED):
        shape = {"error": {"type": type(error).__name__, "message": str(error)}}
        click.echo(json.dumps(shape), err=True)
    else:
        click.echo(f"{click.style('Error:', fg='red')} {error}", err=True)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they must be; numbers stand right."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        for index in range(len(headers))
    ]
    click.secho(_line(headers, widths, right), bold=True)
    for row in texts:
        click.echo(_line(row, widths, right))


def _cell(cell: object) -> str:
    return "" if cell is None else str(cell)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()


def print_fields(fields: Mapping[str, object]) -> None:
    """``label  value`` lines; what is None is left out."""
    shown = {label: value for label, value in fields.items() if value is not None}
    width = max(map(len, shown), default=0)
    for label, value in shown.items():
        first, *rest = str(value).splitlines() or [""]
        click.echo(f"{click.style(label.ljust(width), bold=True)}  {first}".rstrip())
        for line in rest:
            click.echo(f"{' ' * width}  {line}")


def iso(seconds: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC, to the microsecond."""
    if seconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return str(seconds)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def local(seconds: float | None) -> str | None:
    """Seconds since the epoch for people: local time, to the second."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def plain(value: Any) -> Any:
    """A value of the codec as JSON has it; what JSON lacks becomes the nearest that it has.

    Dates are ISO 8601, a timedelta is its seconds, bytes are ``{"base64": …}``, tuples and sets
    are arrays, an Enum is its value, a record is its fields, NaN and the infinities are texts like
    everything else (Decimal, UUID, path, …).
    """
    match value:
        case Enum():
            return plain(value.value)
        case None | bool() | int() | str():
            return value
        case float():
            return value if value - value == 0 else str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray():
            return {"base64": base64.b64encode(value).decode()}
        case dict():
            return {key if type(key) is str else str(key): plain(v) for key, v in value.items()}
    fields = _record_fields(value)
    if fields is not None:
        return {name: plain(field) for name, field in fields.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def _record_fields(value: Any) -> dict[str, Any] | None:
    """The fields of a dataclass, a NamedTuple or a pydantic model."""
    names = getattr(value, "__dataclass_fields__", None)
    if names is not None and not isinstance(value, type):
        return {name: getattr(value, name) for name in names}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        fields: dict[str, Any] = value._asdict()
        return fields
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else None
