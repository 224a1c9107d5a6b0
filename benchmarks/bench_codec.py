"""What the codec costs beside bare msgpack: ``python benchmarks/bench_codec.py``.

Bare msgpack loses types (a tuple comes back as a list) and refuses most; it is the physical
reference for what a byte form can cost. Best of several runs, in microseconds for one call.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgpack

from taskharbor.codec import decode_call, encode_call

RUNS = 5
SECONDS_PER_RUN = 0.05


@dataclass
class Order:
    number: int
    buyer: str
    lines: list[str]


CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "no arguments": ((), {}),
    "one int": ((7,), {}),
    "two scalars, one keyword": (("a@b.c", 5), {"template": "hi"}),
    "nested JSON, 1 KiB": (({"rows": [{"id": i, "name": "n" * 40} for i in range(18)]},), {}),
    "1 MiB of bytes": ((b"\xc7\x00" * (1 << 19),), {}),
    "10 000 ints": ((list(range(10_000)),), {}),
    "datetime and UUID": ((datetime(2024, 5, 6, tzinfo=UTC), UUID(int=1 << 100)), {}),
    "a tuple": (((1, 2, 3),), {}),
    "a dataclass": ((Order(1, "ann", ["a", "b"]),), {}),
}


def main() -> None:
    print(f"{'':26}{'encode':>9}{'decode':>9}{'bare msgpack':>18}{'ratio':>12}")
    for name, (args, kwargs) in CALLS.items():
        print(f"{name:26}{compare(args, kwargs)}")


def compare(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    data = encode_call(args, kwargs)
    encode = microseconds(lambda: encode_call(args, kwargs))
    decode = microseconds(lambda: decode_call(data))
    plain = [list(args), kwargs]
    try:
        packed = msgpack.packb(plain)
    except TypeError:
        return f"{encode:9.2f}{decode:9.2f}{'refuses':>18}"
    pack = microseconds(lambda: msgpack.packb(plain))
    unpack = microseconds(lambda: msgpack.unpackb(packed))
    ratios = f"{encode / pack:6.1f}{decode / unpack:6.1f}"
    return f"{encode:9.2f}{decode:9.2f}{pack:9.2f}{unpack:9.2f}{ratios}"


def microseconds(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call)
    once = max(timer.timeit(20) / 20, 1e-9)
    number = max(int(SECONDS_PER_RUN / once), 1)
    return min(timer.repeat(RUNS, number)) / number * 1e6


if __name__ == "__main__":
    main()
