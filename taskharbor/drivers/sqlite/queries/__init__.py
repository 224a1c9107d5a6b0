"""The driver's SQL, one file per verb.

A file holds statements, each under a line ``-- name: arguments -> what it returns``.
"""

from __future__ import annotations

import re
from pathlib import Path

_HEADLINE = re.compile(r"^-- (\w+):", re.MULTILINE)


def load(verb: str) -> dict[str, str]:
    """The statements of ``queries/{verb}.sql`` by name, without their comments."""
    text = (Path(__file__).parent / f"{verb}.sql").read_text(encoding="utf-8")
    pieces = _HEADLINE.split(text)[1:]
    return {
        name: _without_comments(body) for name, body in zip(pieces[::2], pieces[1::2], strict=True)
    }


def _without_comments(body: str) -> str:
    # The first line is what is left of the headline.
    lines = (line for line in body.splitlines()[1:] if not line.lstrip().startswith("--"))
    return "\n".join(lines).strip().removesuffix(";")
