"""The driver's SQL, one file per verb.

A file holds statements, each under a line ``-- name: arguments -> what it returns``. ``{name}`` in
a statement stands for the part of that name in ``parts/job.sql``: what many of them say of a job.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_HEADLINE = re.compile(r"^-- (\w+):", re.MULTILINE)
_PART = re.compile(r"\{(\w+)\}")


@cache
def load(verb: str) -> dict[str, str]:
    """The statements of ``queries/{verb}.sql`` by name, whole, without their comments."""
    return {
        name: _PART.sub(lambda found: _parts()[found[1]], body).removesuffix(";")
        for name, body in _pieces(_HERE / f"{verb}.sql").items()
    }


@cache
def _parts() -> dict[str, str]:
    return _pieces(_HERE / "parts" / "job.sql")


def _pieces(file: Path) -> dict[str, str]:
    pieces = _HEADLINE.split(file.read_text(encoding="utf-8"))[1:]
    return {
        name: _without_comments(body) for name, body in zip(pieces[::2], pieces[1::2], strict=True)
    }


def _without_comments(body: str) -> str:
    # The first line is what is left of the headline.
    lines = (line for line in body.splitlines()[1:] if not line.lstrip().startswith("--"))
    return "\n".join(lines).strip()
