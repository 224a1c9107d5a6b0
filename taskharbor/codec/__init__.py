"""How arguments, results and failures become bytes, and how bytes become exactly those again.

Never pickle: decoding runs no code that the bytes name, except the constructors of record classes
(dataclass, NamedTuple, pydantic model) that are already imported. See docs/serialization.md.
"""

from taskharbor.codec.failure import Failure
from taskharbor.codec.reader import decode, decode_all, decode_call
from taskharbor.codec.rebuild import rebuilder
from taskharbor.codec.text import clean_text
from taskharbor.codec.wire import MAX_DEPTH, WIRE_VERSION
from taskharbor.codec.writer import encode, encode_call

__all__ = [
    "MAX_DEPTH",
    "WIRE_VERSION",
    "Failure",
    "clean_text",
    "decode",
    "decode_all",
    "decode_call",
    "encode",
    "encode_call",
    "rebuilder",
]
