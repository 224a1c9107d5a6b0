"""Records that yesterday's code wrote are read by today's, and the other way round."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, Field, field_validator

from taskharbor.codec import decode, decode_call, encode, encode_call, rebuilder
from taskharbor.errors import DecodeError

Deploy = Callable[[type], None]


@pytest.fixture
def deploy() -> Iterator[Deploy]:
    """Makes a class be the one called ``shop:Thing``."""
    module = ModuleType("shop")
    sys.modules["shop"] = module

    def put(cls: type) -> None:
        cls.__module__, cls.__qualname__, cls.__name__ = "shop", "Thing", "Thing"
        module.Thing = cls  # type: ignore[attr-defined]

    yield put
    del sys.modules["shop"]


def across(deploy: Deploy, old: Callable[[], Any], today: type) -> Any:
    """What a worker with ``today`` gets of a value made when ``old()``'s class was deployed."""
    value = old()
    deploy(type(value))
    data = encode([value])
    deploy(today)
    (back,) = decode(data)
    return back


@dataclass
class OldPart:
    name: str
    fax: str = "030"


@dataclass
class PartWithDefault:
    name: str
    tags: list[str] = field(default_factory=lambda: ["new"])


@dataclass
class PartWithDemand:
    name: str
    tax: float


@dataclass(frozen=True, slots=True)
class FrozenPart:
    name: str


def test_an_added_field_takes_its_default_and_a_removed_one_is_passed_over(deploy: Deploy) -> None:
    back = across(deploy, lambda: OldPart("a"), PartWithDefault)
    assert back == PartWithDefault("a", ["new"])


def test_an_added_field_without_default_is_an_error_that_says_so(deploy: Deploy) -> None:
    with pytest.raises(DecodeError, match=r"no value for the field 'tax' of Thing; .* default"):
        across(deploy, lambda: OldPart("a"), PartWithDemand)


def test_a_dataclass_may_become_frozen_and_slotted(deploy: Deploy) -> None:
    assert across(deploy, lambda: OldPart("a"), FrozenPart) == FrozenPart("a")


def test_a_constructor_that_refuses_is_an_error_with_its_reason(deploy: Deploy) -> None:
    @dataclass
    class Strict:
        name: str

        def __post_init__(self) -> None:
            raise ValueError("names have two letters now")

    with pytest.raises(DecodeError, match=r"can't make a shop:Thing .*two letters now"):
        across(deploy, lambda: OldPart("a"), Strict)


class OldPair(NamedTuple):
    left: int
    right: int = 0


class NewPair(NamedTuple):
    right: int
    middle: int = 5


class DemandingPair(NamedTuple):
    left: int
    last: int


def test_a_namedtuples_fields_go_by_name(deploy: Deploy) -> None:
    assert across(deploy, lambda: OldPair(1, 2), NewPair) == NewPair(2, 5)
    with pytest.raises(DecodeError, match="'last'"):
        across(deploy, lambda: OldPair(1, 2), DemandingPair)


class OldModel(BaseModel):
    count: int = Field(alias="theCount")
    gone: str = ""

    @field_validator("count")
    @classmethod
    def double(cls, count: int) -> int:
        return count * 2


class GrownModel(BaseModel, extra="forbid"):
    count: int
    new: str = "n"


class TextModel(BaseModel):
    count: str = Field(alias="theCount")
    gone: str = ""


class LenientModel(BaseModel, extra="allow"):
    count: int


def old_model() -> OldModel:
    return OldModel(theCount=2, gone="g")


def test_a_model_whose_class_stayed_is_not_validated_again(deploy: Deploy) -> None:
    back = across(deploy, old_model, OldModel)
    assert back.count == 4  # doubled once


def test_a_model_whose_class_changed_is_validated(deploy: Deploy) -> None:
    back = across(deploy, old_model, GrownModel)
    assert back == GrownModel(count=4)
    assert type(back) is GrownModel
    with pytest.raises(DecodeError, match=r"can't make a shop:Thing .*theCount|count"):
        across(deploy, old_model, TextModel)


def test_a_model_that_allows_extra_fields_keeps_what_was_removed(deploy: Deploy) -> None:
    assert across(deploy, old_model, LenientModel).gone == "g"


class OldMood(Enum):
    GOOD = 1
    BAD = 2


class NewMood(Enum):
    GOOD = "good"
    GREAT = "great"


def test_an_enum_member_goes_by_its_name(deploy: Deploy) -> None:
    assert across(deploy, lambda: OldMood.GOOD, NewMood) is NewMood.GOOD
    with pytest.raises(DecodeError, match="shop:Thing has no member 'BAD'"):
        across(deploy, lambda: OldMood.BAD, NewMood)


def test_a_name_that_is_now_something_else_is_an_error(deploy: Deploy) -> None:
    with pytest.raises(DecodeError, match="'shop:Thing' is not a dataclass"):
        across(deploy, lambda: OldPart("a"), NewPair)


def test_a_class_that_moved_is_known_by_annotation(deploy: Deploy) -> None:
    def task(part: PartWithDefault | None, mood: NewMood) -> None: ...

    deploy(OldPart)
    part = OldPart("a")
    data = encode_call((part,), {"mood": "great"})
    del sys.modules["shop"].Thing
    with pytest.raises(DecodeError, match="import shop in the worker's app, or annotate"):
        decode_call(data)
    args, kwargs = decode_call(data, rebuild=rebuilder(task))
    assert args == [PartWithDefault("a", ["new"])]
    assert kwargs == {"mood": NewMood.GREAT}
