"""Text that every store, log and terminal can take."""

from __future__ import annotations


def clean_text(text: str) -> str:
    """``text`` with NULs and lone surrogates as visible escapes: Postgres refuses the first, UTF-8
    the second. For texts that people read (errors); values travel exactly instead."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\0", "\\x00")


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` bytes of UTF-8: head and tail of ``text``, which must be clean."""
    data = text.encode()
    if len(data) <= limit:
        return text
    note = f" … {len(data) - limit:,} bytes left out … "
    half = max(limit - len(note.encode()), 0) // 2
    head, tail = data[:half], data[len(data) - half :]
    return f"{head.decode(errors='ignore')}{note}{tail.decode(errors='ignore')}"


def one_line(error: Exception, limit: int = 300) -> str:
    """Type and message of an error, whatever its class does when it is asked."""
    try:
        message = str(error)
    except Exception as unprintable:  # noqa: BLE001 - raised by a user's __str__
        message = f"its message can't be printed: {type(unprintable).__name__}"
    message = " ".join(clean_text(message).split())
    return shorten(f"{type(error).__name__}: {message}".removesuffix(": "), limit)
