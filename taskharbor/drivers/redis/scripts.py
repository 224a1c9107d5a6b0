"""The Lua scripts: each file of ``scripts/`` behind ``head.lua``, called by its hash."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from taskharbor.drivers.redis.server import packed

WORDS = 7
"""Of the command that calls a script: also their number, one key and three arguments."""
_WITHOUT_HEAD = frozenset({"enqueue_one"})
_INCLUDE = re.compile(rb"^-- include (\w+)\.lua$", re.MULTILINE)


class Script(NamedTuple):
    """``by_hash`` and ``by_text`` are the beginnings of commands; the arguments come next."""

    text: bytes
    by_hash: bytes
    by_text: bytes


@cache
def load(name: str) -> Script:
    """The script in ``scripts/<name>.lua``, with what it includes."""
    text = _whole(name) if name in _WITHOUT_HEAD else _whole("head") + _whole(name)
    digest = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
    head = b"*%d\r\n" % WORDS
    return Script(text, head + packed(b"EVALSHA", digest), head + packed(b"EVAL", text))


def _whole(name: str) -> bytes:
    return _INCLUDE.sub(lambda match: _whole(match[1].decode()), _read(name))


def _read(name: str) -> bytes:
    return (files(__package__) / "scripts" / f"{name}.lua").read_bytes()
