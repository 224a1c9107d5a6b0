"""Where a page of a listing ended: numbers of its last row, with dots between them."""

from __future__ import annotations

from taskharbor.errors import InvalidCursor


def write(*numbers: int) -> str:
    return ".".join(map(str, numbers))


def read(cursor: str, count: int) -> list[int]:
    """The ``count`` numbers of ``cursor``. Raises InvalidCursor."""
    numbers = cursor.split(".")
    if len(numbers) != count or not all(map(_is_bigint, numbers)):
        raise InvalidCursor(
            f"the cursor {cursor!r} was not given out by this store; begin again without one"
        )
    return [int(number) for number in numbers]


def _is_bigint(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19
