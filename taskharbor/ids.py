"""Ids that sort by their time of birth, so that a store appends them to its index.

28 hex digits: 48 bits of milliseconds, then 64 random bits (the field order of RFC 9562's UUIDv7
without its fixed bits).
"""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """A job or holder id that nobody else will make: 28 lower-case hex digits."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"
