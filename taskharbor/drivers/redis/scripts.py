"""The Lua scripts: each file of ``scripts/`` behind ``common.lua``, called by its hash."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    name: str
    text: bytes
    sha: str


@cache
def load(name: str) -> Script:
    """The script in ``scripts/<name>.lua``, with what all scripts begin with."""
    folder = files(__package__) / "scripts"
    text = (folder / "common.lua").read_bytes() + (folder / f"{name}.lua").read_bytes()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())
