"""The flags that commands share, and how their texts become values."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import click

from taskharbor import defaults
from taskharbor.cli.output import JSON_ASKED
from taskharbor.message import check_name

Command = TypeVar("Command", bound=Callable[..., Any])


def _ask_for_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    # Where errors look for it too.
    ctx.find_root().meta[JSON_ASKED] = value
    return value


url_option = click.option(
    "--url",
    metavar="URL",
    help="The store. Default: the app's, else TASKHARBOR_URL, else sqlite:///taskharbor.db.",
)
app_option = click.option(
    "-A",
    "--app",
    "app_path",
    metavar="MODULE[:ATTR]",
    help="The app. Without ATTR, the module's only TaskHarbor.",
)
json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    callback=_ask_for_json,
    is_eager=True,
    help="Print JSON, in the form that docs/cli.md describes.",
)


def store_options(command: Command) -> Command:
    """``--url``, ``-A`` and ``--json``."""
    for option in (json_option, app_option, url_option):
        command = option(command)
    return command


def queue_option(help_text: str = "Only jobs of this queue.") -> Callable[[Command], Command]:
    """``--queue NAME``, checked."""
    check = check_with(check_name, "queue")
    return click.option("--queue", metavar="NAME", callback=check, help=help_text)


def task_option(help_text: str = "Only jobs of this task.") -> Callable[[Command], Command]:
    """``--task NAME``, checked."""
    check = check_with(check_name, "task")
    return click.option("--task", metavar="NAME", callback=check, help=help_text)


def listing_options(command: Command) -> Command:
    """Which jobs, and which page of them: ``--queue``, ``--task``, ``--limit``, ``--cursor``."""
    limit = click.option(
        "--limit",
        type=click.IntRange(1, defaults.BATCH),
        default=20,
        show_default=True,
        help="Jobs on one page.",
    )
    cursor = click.option("--cursor", help="Where the last page said that it goes on.")
    return queue_option()(task_option()(limit(cursor(command))))


# --- texts that become values; click names the flag in the error ---------------------------------


def seconds(text: str) -> float:
    """A number of seconds, or a number with a unit: ``90``, ``1.5``, ``15m``, ``2h``, ``7d``."""
    text = str(text)
    unit = _SECONDS.get(text[-1:], 0)
    try:
        length = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        length = math.nan
    if not 0 <= length <= defaults.MAX_DELAY_SECONDS:
        raise click.BadParameter(
            f"{text!r} is not a length of time; use seconds (90, 1.5) or a unit (15m, 2h, 7d), "
            f"from 0 to {defaults.MAX_DELAY_SECONDS / 86_400:g}d"
        )
    return length


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def moment(text: str) -> datetime:
    """RFC 3339 with a time zone, or seconds since the epoch → an aware datetime."""
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except ValueError:
        pass  # no number (or nan): read it as a date
    except (OverflowError, OSError):
        raise click.BadParameter(f"{text!r} is beyond the year 9999") from None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a moment; write it as 2030-01-31T09:00:00Z, "
            "2030-01-31T09:00:00+02:00, or as seconds since 1970"
        ) from None
    if found.utcoffset() is None:
        raise click.BadParameter(
            f"{text!r} has no time zone, so it means another moment on every machine; add one: "
            f"{found.isoformat()}Z or {found.isoformat()}+02:00"
        )
    return found


def size(text: str) -> int:
    """A size with a unit: ``256M``, ``1.5G`` → bytes."""
    unit = _BYTES.get(text[-1:].upper(), 0)
    try:
        found = float(text[:-1]) * unit
    except ValueError:
        found = math.nan
    if not 1 <= found < 1 << 62:
        # A bare number is refused: Celery's are KiB, others' are bytes.
        raise click.BadParameter(f"{text!r} is not a size; write a unit, as in 256M or 1.5G")
    return int(found)


_BYTES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def read_arguments(words: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """The ``(args, kwargs)`` of a call: a JSON array, a JSON object, or one of each. ``@FILE``
    stands for a file's content, ``-`` for standard input. Raises click.UsageError."""
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    for word in words:
        match _read_json(word):
            case list(value) if args is None:
                args = value
            case dict(value) if kwargs is None:
                kwargs = value
            case list() | dict():
                raise click.UsageError(
                    "there are two arrays or two objects; give positional arguments as one JSON "
                    "array and keyword arguments as one JSON object"
                )
            case value:
                raise click.UsageError(
                    f"{json.dumps(value)[:60]} is neither a JSON array nor an object; for one "
                    f"argument write '[{json.dumps(value)[:60]}]'"
                )
    return args or [], kwargs or {}


def _read_json(word: str) -> Any:
    text = _read_text(word)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise click.UsageError("the arguments are nested too deep") from None
    except ValueError as error:
        shown = text if len(text) <= 60 else f"{text[:60]}…"
        raise click.UsageError(
            f"{shown!r} is not JSON ({error}); write arguments as '[1, \"two\"]' or "
            '\'{"name": "value"}\', in single quotes for the shell'
        ) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _read_text(word: str) -> str:
    try:
        if word == "-":
            return sys.stdin.read()
        if word.startswith("@"):
            with open(word[1:], encoding="utf-8") as file:
                return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"the arguments in {word[1:]!r} can't be read: {error}") from error
    return word


def check_with(check: Callable[..., object], *leading: Any) -> Callable[..., Any]:
    """A click callback that lets one of the contract's own checks judge a value, if there is
    one."""
    return partial(_check_value, check, leading)


def _check_value(
    check: Callable[..., object],
    leading: tuple[Any, ...],
    ctx: click.Context,
    param: click.Parameter,
    value: Any,
) -> Any:
    from taskharbor.errors import TaskHarborError

    for each in value if isinstance(value, tuple) else (value,):
        if each is None:
            continue
        try:
            check(*leading, each)
        except TaskHarborError as error:
            raise click.BadParameter(str(error), ctx, param) from error
    return value
