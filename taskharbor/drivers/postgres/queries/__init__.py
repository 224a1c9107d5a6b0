"""The driver's SQL, one file per verb. What moves jobs are functions in ``migrations``.

A file holds statements, each under a line ``-- name: arguments -> what it returns``. They are
written for the schema ``th``; arguments are psycopg's ``%(name)s``.
"""

from __future__ import annotations

import re
from importlib.resources import files

_HEADLINE = re.compile(r"^-- (\w+):.*$", re.MULTILINE)
_VERBS = (
    "schema",
    "enqueue",
    "exchange",
    "leases",
    "maintain",
    "inspect",
    "operate",
    "waiting",
    "transact",
    "flows",
)


def load() -> dict[str, str]:
    """All statements by name, without their comments."""
    statements: dict[str, str] = {}
    for verb in _VERBS:
        text = files(__package__).joinpath(f"{verb}.sql").read_text(encoding="utf-8")
        pieces = _HEADLINE.split(text)[1:]
        for name, body in zip(pieces[::2], pieces[1::2], strict=True):
            statements[name] = _without_comments(body)
    return statements


def _without_comments(body: str) -> str:
    lines = (line for line in body.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(lines).strip().removesuffix(";")
