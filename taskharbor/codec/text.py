"""Text that every store, log and terminal can take."""

from __future__ import annotations


def clean_text(text: str) -> str:
    """``text`` with NULs and lone surrogates as visible escapes: Postgres refuses the first, UTF-8
    the second. For texts that people read (errors); values travel exactly instead."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\0", "\\x00")


def shorten(text: str, limit: int) -> str:
    """At most about ``limit`` characters of ``text``: its head and its tail."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
