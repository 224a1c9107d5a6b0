"""Plain data becomes what parameters are annotated with; what is right already is left alone."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NewType, Optional, TypedDict

import pytest
from hypothesis import given
from typing_extensions import TypeAliasType

from taskharbor.codec import decode_call, encode_call, rebuilder
from taskharbor.errors import DecodeError
from tests.unit.codec_samples import (
    Address,
    Color,
    Computed,
    Item,
    Key,
    Level,
    NeedsInitVar,
    Open,
    Order,
    Pair,
    Point,
    Right,
    T,
    User,
    Villa,
    Word,
)
from tests.unit.test_codec_roundtrip import VALUES

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]

ItemId = NewType("ItemId", Item)


@dataclass
class Node:
    name: str
    children: list[Node] = field(default_factory=list)
    parent: Optional[Node] = None  # noqa: UP045 - both spellings are in use
    color: Color = Color.RED


@dataclass
class Crate(Generic[T]):
    content: T
    more: list[T] = field(default_factory=list)


class Tree(TypedDict):
    item: Item
    children: list[Tree]


class Ring(TypedDict):
    name: str
    others: list[Ring]


class Row(TypedDict):
    item: Item
    count: int


Many = TypeAliasType("Many", list[T], type_params=(T,))
Text = TypeAliasType("Text", str | bytes)


@dataclass
class Cat:
    name: str


@dataclass
class Fish:
    name: str
    scales: int = 0


def rebuilt(annotation: Any, value: Any) -> Any:
    """What a parameter of this annotation gets for ``value``."""

    def task(p):  # type: ignore[no-untyped-def]
        return p

    task.__annotations__ = {"p": annotation}
    rebuild = rebuilder(task)
    assert rebuild is not None
    (by_position,), _ = rebuild([value], {})
    _, by_name = rebuild([], {"p": value})
    assert by_position == by_name["p"]
    return by_position


ANN = User(userName="u", address=Address(street="s"))
TREE = {"item": Item("a", 1), "children": [{"item": Item("a", 1), "children": []}]}
ITEM, PLAIN_ITEM = Item("a", 1), {"name": "a", "price": 1}


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (Item, PLAIN_ITEM, ITEM),
        (Item, {"name": "a"}, Item("a")),
        (Item | None, PLAIN_ITEM, ITEM),
        (Optional[Item], None, None),  # noqa: UP045
        (list[Item], [PLAIN_ITEM, ITEM], [ITEM, ITEM]),
        (Sequence[Item], (PLAIN_ITEM,), (ITEM,)),
        (Iterable[Item], [PLAIN_ITEM], [ITEM]),
        (dict[str, Item], {"k": PLAIN_ITEM}, {"k": ITEM}),
        (Mapping[Color, list[Item]], {"r": [PLAIN_ITEM]}, {Color.RED: [ITEM]}),
        (tuple[Item, int], [PLAIN_ITEM, 1], (ITEM, 1)),
        (tuple[Item, ...], [PLAIN_ITEM, PLAIN_ITEM], (ITEM, ITEM)),
        (set[Color], ["r"], {Color.RED}),
        (frozenset[Level], [1, 2], frozenset(Level)),
        (Annotated[Item, "note"], PLAIN_ITEM, ITEM),
        (ItemId, PLAIN_ITEM, ITEM),
        (Crate[Item], {"content": PLAIN_ITEM, "more": [PLAIN_ITEM]}, Crate(ITEM, [ITEM])),
        (Crate[Crate[Item]], {"content": {"content": PLAIN_ITEM}}, Crate(Crate(ITEM))),
        (Row, {"item": PLAIN_ITEM, "count": 1}, {"item": ITEM, "count": 1}),
        (Order, {"items": [PLAIN_ITEM], "buyer": {"x": 1}}, Order([ITEM], {"x": 1})),
        (Node, {"name": "a", "children": [{"name": "b", "color": "RED"}]}, Node("a", [Node("b")])),
        (Node, {"name": "b", "parent": {"name": "a"}}, Node("b", parent=Node("a"))),
        (Point, [1.0, 2.0], Point(1, 2)),
        (Point, {"x": 1.0}, Point(1)),
        (Pair, [1, 2], Pair(1, 2)),
        (Color, "r", Color.RED),
        (Color, "GREEN", Color.GREEN),
        (Level, 2, Level.HIGH),
        (Word, "yes", Word.YES),
        (Right, 3, Right.READ | Right.WRITE),
        (Address, {"street": "s"}, Address(street="s")),
        (User, {"userName": "u", "address": {"street": "s"}}, ANN),
        (list[Address | None], [None, {"street": "s"}], [None, Address(street="s")]),
        (Cat | str, "tom", "tom"),
        (Cat | str, {"name": "tom"}, Cat("tom")),
        (Cat | dict[str, Any], {"name": "tom"}, {"name": "tom"}),
        (Cat | Fish, {"name": "x", "scales": 3}, Fish("x", 3)),
        (Cat | Literal["none"], "none", "none"),
        (Cat | float, 3, 3),
        (Item | Color, "r", Color.RED),
        (Item | Text, "x", "x"),
        (Item | Text, PLAIN_ITEM, ITEM),
        (Cat | Many[Cat], [{"name": "x"}], [Cat("x")]),
        (Many[Item], [PLAIN_ITEM], [ITEM]),
        (Tree, {"item": PLAIN_ITEM, "children": [{"item": PLAIN_ITEM, "children": []}]}, TREE),
    ],
)  # fmt: skip
def test_plain_data_becomes_what_the_annotation_says(
    annotation: Any, value: Any, expected: Any
) -> None:
    result = rebuilt(annotation, value)
    assert result == expected
    assert type(result) is type(expected)


if sys.version_info >= (3, 12):  # older Pythons have no type statement

    def test_type_statements_may_be_recursive_or_unresolvable() -> None:
        namespace: dict[str, Any] = {"Item": Item}
        exec(
            "type Forest = dict[str, Forest] | Item\n"
            "type Json = dict[str, Json] | list[Json] | str | None\n"
            "type Lost = nowhere.Missing\n"
            "def plain(a: Json, b: Lost, c: Lost | int) -> None: ...\n",
            namespace,
        )
        grown = rebuilt(namespace["Forest"], {"a": {"b": {"c": PLAIN_ITEM}}, "d": PLAIN_ITEM})
        assert grown == {"a": {"b": {"c": ITEM}}, "d": ITEM}
        assert rebuilder(namespace["plain"]) is None


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Item, ITEM),
        (list[Item], [ITEM]),
        (Sequence[Item], (ITEM,)),
        (dict[str, Item], {"a": ITEM}),
        (tuple[Item, int], (ITEM, 1)),
        (set[Color], {Color.RED}),
        (Iterable[Color], frozenset(Color)),
        (Address, Villa(street="s")),
        (Row, {"item": ITEM, "count": 1}),
        (Cat | Fish, Cat("tom")),
        (Cat | list[Cat], [Cat("tom")]),
    ],
)
def test_what_is_right_already_is_the_same_object(annotation: Any, value: Any) -> None:
    assert rebuilt(annotation, value) is value


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        (Item, 5, "it is 5, not a Item or a dict of its fields"),
        (Item, None, "it is None, not a Item"),
        (Item, [1], "it is a list, not a Item"),
        (Item, {}, "no value for the field 'name' of Item"),
        (Item, {"name": "a", "prise": 1}, "it has 'prise', which is no field of Item: name, price"),
        (list[Item], [ITEM, "x"], "[1] is 'x', not a Item"),
        (list[Item], "x", "it is 'x', not a list"),
        (dict[str, Item], {"k": 1}, "['k'] is 1, not a Item"),
        (tuple[Item, int], [ITEM], "it is a list, not a tuple of 2"),
        (Order, {"items": [{"name": 1}, 7], "buyer": 0}, "items[1] is 7, not a Item"),
        (Color, "blue", "is 'blue', which is neither value nor name in Color: RED, GREEN"),
        (Level, None, "is None, which is neither"),
        (Right, 64, "is 64, which is neither"),
        (Address, {"city": 1}, "can't become a Address: ValidationError: 2 validation errors"),
        (Address, 3, "can't become a Address"),
        (Point, [1, 2, 3], "is a list, not a Point"),
        (Cat | Fish, {"name": "x"}, "could be Cat and Fish alike; pass an instance"),
        (Cat | Fish, 3, "fits no member of the union: it is 3, not a Cat"),
        (Cat | str, 3, "is 3, not a Cat"),
    ],
)
def test_rubbish_is_an_error_that_names_parameter_and_place(
    annotation: Any, value: Any, reason: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        rebuilt(annotation, value)
    assert str(caught.value).startswith("the argument 'p' does not fit: ")
    assert reason in str(caught.value)


def nothing_annotated(a, b=1, *c, d=2, **e): ...  # type: ignore[no-untyped-def]


def only_recursive(b: Ring, c: list[Text]) -> None: ...


def only_plain(
    a: int, b: list[str], c: datetime, d: Decimal | None, *e: Any, f: dict[str, T], **g: object
) -> None: ...


@pytest.mark.parametrize("fn", [nothing_annotated, only_plain, only_recursive, max, print])
def test_there_is_no_rebuilder_where_nothing_needs_one(fn: Callable[..., Any]) -> None:
    assert rebuilder(fn) is None


def test_every_kind_of_parameter_is_converted() -> None:
    def task(a: Item, /, b: Item, *c: Item, d: Item, **e: Item) -> None: ...

    rebuild = rebuilder(task)
    assert rebuild is not None
    plain = dict(PLAIN_ITEM)
    args, kwargs = rebuild([plain] * 4, {"d": plain, "a": plain, "z": plain})
    assert args == [ITEM] * 4
    assert kwargs == {"d": ITEM, "a": ITEM, "z": ITEM}
    assert rebuild([plain], {"b": plain}) == ([ITEM], {"b": ITEM})


def test_a_call_of_the_wrong_arity_is_left_to_the_call() -> None:
    def task(a: Item) -> None: ...

    rebuild = rebuilder(task)
    assert rebuild is not None
    assert rebuild([PLAIN_ITEM, 2, 3], {"x": 1}) == ([ITEM, 2, 3], {"x": 1})
    assert rebuild([], {}) == ([], {})


def test_a_default_of_none_makes_none_welcome() -> None:
    def task(a: Item = None) -> None: ...  # type: ignore[assignment]

    rebuild = rebuilder(task)
    assert rebuild is not None
    assert rebuild([None], {}) == ([None], {})


def test_a_bound_tasks_self_is_skipped() -> None:
    def task(self: Any, a: Item) -> None: ...

    rebuild = rebuilder(task, skip=1)
    assert rebuild is not None
    assert rebuild([PLAIN_ITEM], {}) == ([ITEM], {})


def test_wrapped_partial_bound_and_callable_objects_are_seen_through() -> None:
    class Shop:
        def sell(self, a: Item) -> None: ...

        def __call__(self, a: Item) -> None: ...

    def task(n: int, a: Item) -> None: ...

    @functools.wraps(task)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    for fn in (functools.partial(task, 1), Shop().sell, Shop()):
        rebuild = rebuilder(fn)
        assert rebuild is not None, fn
        assert rebuild([PLAIN_ITEM], {}) == ([ITEM], {})
    rebuild = rebuilder(wrapper)
    assert rebuild is not None
    assert rebuild([1, PLAIN_ITEM], {}) == ([1, ITEM], {})


def test_an_annotation_that_does_not_resolve_is_passed_over() -> None:
    def task(a: Missing, b: Item) -> None: ...

    rebuild = rebuilder(task)
    assert rebuild is not None
    assert rebuild([PLAIN_ITEM, PLAIN_ITEM], {}) == ([PLAIN_ITEM, ITEM], {})


def test_a_class_further_down_in_the_module_is_known_at_the_first_call() -> None:
    namespace: dict[str, Any] = {"__name__": "later"}
    exec("def task(a: 'Below', b: 'Nowhere' = 1): ...", namespace)
    rebuild = rebuilder(namespace["task"])
    assert rebuild is not None
    namespace["Below"] = Item
    assert rebuild([PLAIN_ITEM], {}) == ([ITEM], {})


def test_fields_that_are_no_arguments_are_restored_too() -> None:
    value = Computed(3)
    plain = asdict(value)
    assert plain == {"cents": 300, "doubled": 600}
    assert asdict(rebuilt(Computed, plain)) == plain


def test_an_initvar_may_stand_in_a_dict() -> None:
    assert rebuilt(NeedsInitVar, {"password": "abc"}).digest == "cba"


def test_extra_fields_go_to_a_model_that_allows_them() -> None:
    assert rebuilt(Open, {"known": 1, "more": 2}).more == 2


@given(VALUES)
def test_whatever_the_value_it_fits_or_is_a_decode_error(value: Any) -> None:
    def task(
        a: Item, b: Node, c: Color | Right, d: set[Key] | Tree, e: dict[Key, Point],
        f: tuple[Level, ...] | tuple[Word, Item], g: User | Literal[1, "x"], h: Crate[Item],
    ) -> None: ...  # fmt: skip

    rebuild = rebuilder(task)
    assert rebuild is not None
    for name in "abcdefgh":
        try:
            rebuild([], {name: value})
        except DecodeError:
            pass


# --- classes that are not where they were -----------------------------------------------------


def moved(data: bytes) -> bytes:
    """``data`` as it would look had its classes come from a module that is unknown here."""
    name = b"tests.unit.codec_samples"
    return data.replace(name, b"x" * len(name))


def test_records_of_unknown_classes_are_rebuilt_by_annotation() -> None:
    def task(order: Order, at: Point, right: Right, home: Address, tags: list[Color]) -> None: ...

    order = Order([Item("a", 1)], buyer=None, tags=frozenset({"t"}))
    args = (order, Point(1, 2), Right.READ | Right.WRITE, Address(street="s"), [Color.GREEN])
    data = moved(encode_call(args, {}))
    with pytest.raises(
        DecodeError, match=r"not known here: import x+ in the worker's app, or annotate"
    ):
        decode_call(data)
    back, _ = decode_call(data, rebuild=rebuilder(task))
    assert tuple(back) == args


def test_a_record_of_an_unknown_class_reaches_no_task_unrebuilt() -> None:
    def task(a: Any, b: Item | object, c: Item) -> None: ...

    rebuild = rebuilder(task)
    known = encode_call((1, 2, Item("c")), {})
    assert decode_call(known, rebuild=rebuild) == ([1, 2, Item("c")], {})
    for args in ((Item("a"), 2, Item("c")), (1, 2, Item("c", Item("inside")))):
        with pytest.raises(DecodeError, match="not known here"):
            decode_call(moved(encode_call(args, {})), rebuild=rebuild)


def test_a_class_that_left_an_import_behind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_call((Item("a"),), {}).replace(b"codec_samples", b"codec_moved_!")
    module = ModuleType("tests.unit.codec_moved_!")
    module.Item = Item  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert decode_call(data) == ([Item("a")], {})
