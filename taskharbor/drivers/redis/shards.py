"""Ids that sort by time and name their shard.

    19 characters: 7 of milliseconds, 12 random        with one shard
    the same, then ":" and the shard's number          with several

Any other id (a caller's own) lives in the shard that its hash says, and so does an idempotency
key. 72 random bits: shorter than ``ids.new_id`` and no more likely to collide.
"""

from __future__ import annotations

import os
import time
from binascii import b2a_base64
from functools import lru_cache
from zlib import crc32

from taskharbor.errors import InvalidJob

_DIGITS = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"  # in ASCII order
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_CHARS = 19
_TIME_CHARS = 7  # 42 bits: until 2109; since 2004 the first is one that a name may begin with


def new_id() -> str:
    letters = b2a_base64(os.urandom(9), newline=False).translate(_URL_SAFE).decode()
    return _time(time.time_ns() // 1_000_000) + letters


@lru_cache(maxsize=1)
def _time(millis: int) -> str:
    return "".join([_DIGITS[millis >> shift & 63] for shift in range(36, -1, -6)])


def hashed(text: str, shards: int) -> int:
    """The shard of a key, or of an id that names none."""
    return crc32(text.encode(errors="surrogatepass")) % shards


def shard_of(job_id: str, shards: int) -> int:
    if shards == 1:
        return 0
    head, _, tail = job_id.rpartition(":")
    if len(head) == _CHARS and tail.isdecimal() and tail.isascii() and int(tail) < shards:
        return int(tail)
    return hashed(job_id, shards)


def home(job_id: str, key: str | None, shards: int) -> int:
    """The shard of a job to be stored. Raises InvalidJob when its key belongs elsewhere: a lookup
    by id would not find it there."""
    shard = shard_of(job_id, shards)
    if key is not None and shards > 1 and hashed(key, shards) != shard:
        raise InvalidJob(
            f"job id {job_id!r} lives in shard {shard} and idempotency key {key!r} in shard "
            f"{hashed(key, shards)}; leave job_id out, or take one from new_job_id(key)"
        )
    return shard
