"""Whole pages for the screen, of what a store gives in short ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def whole_page(
    read: Callable[[str | None, int], tuple[list[T], str | None]], cursor: str | None, limit: int
) -> tuple[list[T], str | None]:
    """``limit`` items if there are as many, and where it goes on: one call of a store may look at
    many records and find few. ``read`` takes a cursor and a limit."""
    items: list[T] = []
    while True:
        found, cursor = read(cursor, limit - len(items))
        items += found
        if cursor is None or len(items) >= limit:
            return items, cursor
