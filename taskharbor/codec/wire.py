"""Values to bytes and back: one version byte, then msgpack.

None, bool, int, float, str, bytes, list and dict are msgpack's own. All else is an
extension:

- a *leaf* (leaves.py, and an Enum member) is one extension with no other value inside;
- a *structure* (tuple, set, dict with unusual keys, record) is an array whose first item is an
  empty extension that says what it is, its *mark*: ``[mark, item, item, …]``. Nesting stays
  msgpack's own, so one linear pass in C reads it all, and no depth of it can exhaust the stack.
  A record's first item is its class's name; a name and a value per field follow.

Guarantees: what is decoded has the types and the values of what was encoded; what would not is
refused when it is encoded. Equal sets give equal bytes in every process (their items are sorted by
encoded form), so that a digest of the bytes means something; dicts keep their order. Whatever the
bytes, decoding raises only DecodeError, imports nothing (the tzdata package apart), and takes time
and memory in proportion to them. It does call the constructors of record classes.
"""

from __future__ import annotations

import msgpack

WIRE_VERSION = 1
MAX_DEPTH = 128
"""How deep values may nest. A deeper one is almost always a cycle; and the walk is recursive."""

VERSION_BYTE = bytes([WIRE_VERSION])
SCALARS = frozenset({type(None), bool, int, float, str, bytes})
EMPTY_CALL: bytes = VERSION_BYTE + msgpack.packb([[], {}])

# Codes of the structures with nothing but items; those of leaves and records stand with them.
# A released code is never given another meaning.
TUPLE, SET, FROZENSET, MAP = 32, 33, 34, 35

MARK_PREFIX = b"\xc7\x00"
"""How every mark begins. Bytes without it hold no structure; with it, they may."""
