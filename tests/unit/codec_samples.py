"""Classes of every kind that the codec carries, and an equality that looks at types."""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import InitVar, dataclass, field, fields, is_dataclass
from datetime import datetime, time, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum, auto
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, PrivateAttr

T = TypeVar("T")


class Color(Enum):
    RED = "r"
    GREEN = object()
    CRIMSON = "r"  # noqa: PIE796 - an alias


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Word(StrEnum):
    YES = "yes"
    NO = "no"


class Right(Flag):
    READ = auto()
    WRITE = auto()


class Bits(IntFlag):
    ONE = 1
    FOUR = 4


class Point(NamedTuple):
    x: float
    y: float = 0.0


Pair = namedtuple("Pair", "left right")


@dataclass
class Item:
    name: str
    price: Any = None


@dataclass(frozen=True, slots=True)
class Order:
    items: list[Item]
    buyer: Any
    tags: frozenset[Any] = frozenset()


@dataclass(frozen=True)
class Key:
    part: Any


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Computed:
    """Changes a field when it is made, and has one that is no argument and a lock that is none."""

    cents: int
    doubled: int = field(init=False)
    factor: InitVar[int] = 2

    def __post_init__(self, factor: int) -> None:
        self.cents = self.cents * 100
        self.doubled = self.cents * factor
        self.lock = Lock()


@dataclass
class NeedsInitVar:
    digest: str = field(init=False)
    password: InitVar[str]

    def __post_init__(self, password: str) -> None:
        self.digest = password[::-1]


@dataclass(init=False)
class OwnInit:
    size: int

    def __init__(self, text: str) -> None:
        self.size = len(text)


class Outer:
    @dataclass
    class Inner:
        value: Any


class Address(BaseModel):
    street: str
    city: str = "Paris"


class Villa(Address):
    pools: int = 0


class User(BaseModel):
    name: str = Field(alias="userName")
    address: Address
    tags: set[str] = set()
    home: tuple[int, ...] = ()
    _secret: int = PrivateAttr(default=1)


class Open(BaseModel, extra="allow"):
    known: int = 0


def same(a: Any, b: Any) -> bool:
    """Equal in type and value all the way down; NaN equals NaN, -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.copysign(1, a) == math.copysign(1, b) and (
            a == b or (math.isnan(a) and math.isnan(b))
        )
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, Decimal):
        return repr(a) == repr(b)
    if isinstance(a, datetime | time):
        return (
            a.replace(tzinfo=None) == b.replace(tzinfo=None)
            and a.fold == b.fold
            and _same_zone(a.tzinfo, b.tzinfo)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b)


def _same_zone(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, ZoneInfo):
        return bool(a.key == b.key)
    if isinstance(a, timezone):
        return a == b and repr(a) == repr(b)
    return a is None and b is None
