"""Failures travel as data: no exception object, no class to import, bounded and clean text."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from taskharbor import defaults
from taskharbor.codec.reader import decode
from taskharbor.codec.text import clean_text, shorten
from taskharbor.codec.writer import encode
from taskharbor.errors import DecodeError

MAX_CAUSES = 8
"""How many exceptions of a chain are kept, the raised one not counted."""

_RUNNERS = ("taskharbor.worker.", "taskharbor.middleware", "taskharbor.testing")


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in an attempt.

    ``type`` and ``module`` name the exception class, ``message`` is its ``str()``. ``traceback`` is
    the text that Python would have printed, the causes included; so the ``cause``s, the chain of
    ``raise … from …`` as data, carry none of their own.
    """

    type: str
    module: str
    message: str
    traceback: str = ""
    cause: Failure | None = None

    @classmethod
    def of(cls, exc: BaseException, *, limit: int = defaults.MAX_ERROR_BYTES) -> Self:
        """The failure that ``exc`` is, in at most ``limit`` bytes once encoded (from 4 KiB up): of
        longer texts, head and tail.

        Never raises, whatever the exception's class does.
        """
        for_traceback, for_message, for_name = limit // 2, limit // 32, limit // 256
        chain = _chain(exc)
        failure: Self | None = None
        for link in reversed(chain):
            text = _traceback_of(link) if link is exc else ""
            failure = cls(
                type=_clean(type(link).__qualname__, for_name),
                module=_clean(str(type(link).__module__), for_name),
                message=_clean(_message_of(link), for_message),
                traceback=_clean(text, for_traceback),
                cause=failure,
            )
        assert failure is not None
        return failure

    def encode(self) -> bytes:
        return encode(self._rows(), what="failure")

    def _rows(self) -> list[list[str]]:
        rows = []
        link: Failure | None = self
        while link is not None:
            rows.append([link.type, link.module, link.message, link.traceback])
            link = link.cause
        return rows

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises DecodeError for bytes that hold no failure."""
        rows = decode(data)
        if not (type(rows) is list and rows and all(map(_is_row, rows))):
            raise DecodeError("these bytes hold a value, but not a failure")
        failure: Self | None = None
        for kind, module, message, text in reversed(rows):
            failure = cls(kind, module, message, text, failure)
        assert failure is not None
        return failure


def _is_row(row: object) -> bool:
    return type(row) is list and len(row) == 4 and all(type(text) is str for text in row)


def _chain(exc: BaseException) -> list[BaseException]:
    """``exc`` and what it came from, nearest first; ends at a cycle."""
    chain: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and len(chain) <= MAX_CAUSES and not any(link is c for c in chain):
        chain.append(link)
        context = None if link.__suppress_context__ else link.__context__
        link = context if link.__cause__ is None else link.__cause__
    return chain


def _message_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except BaseException as error:  # noqa: BLE001 - whatever the user's class raises
        return f"<the message can't be printed: {type(error).__qualname__}>"


def _traceback_of(exc: BaseException) -> str:
    frames = _own_frames(exc.__traceback__)
    try:
        return "".join(traceback.format_exception(type(exc), exc, frames))
    except BaseException as error:  # noqa: BLE001 - whatever the user's class raises
        return f"<the traceback can't be printed: {type(error).__qualname__}>"


def _own_frames(tb: TracebackType | None) -> TracebackType | None:
    """The frames below what runs tasks, which the reader of a failure knows nothing of."""
    first = tb
    link = tb
    while link is not None:
        module = str(link.tb_frame.f_globals.get("__name__"))
        link = link.tb_next
        if module.startswith(_RUNNERS) and link is not None:
            first = link
    return first


def _clean(text: str, limit: int) -> str:
    return shorten(clean_text(text), limit)
