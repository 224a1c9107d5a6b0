"""The result of a join: not the list itself, but that it is to be read from the predecessors.

So a list is never stored a second time, and has no size limit: every reader takes it in pages from
the results that it consists of. The bytes are no value of the codec.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import msgpack

from taskharbor.errors import DecodeError
from taskharbor.wiring import Runs

MARK = b"\xc1taskharbor.gathered"  # no msgpack, and no version of the codec, begins with c1


class Gathered(NamedTuple):
    """The list of the results of the job's first ``size`` predecessors; ``allowed``: at these
    places it may have exceptions."""

    size: int
    allowed: Runs = ()

    def encode(self) -> bytes:
        packed: bytes = msgpack.packb([self.size, self.allowed])
        return MARK + packed

    @classmethod
    def decode(cls, result: bytes) -> Self | None:
        """None for any other result. Raises DecodeError."""
        if not result.startswith(MARK):
            return None
        try:
            size, allowed = msgpack.unpackb(result[len(MARK) :])
            return cls(int(size), tuple((int(first), int(last)) for first, last in allowed))
        except Exception as error:  # msgpack raises a dozen types on hostile bytes
            raise DecodeError(f"the stored result of a join is corrupt ({error})") from error
