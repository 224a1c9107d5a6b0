"""The converters that annotations are compiled to.

A converter returns the value as annotated: the same object if it is right already, else a new one.
It raises Misfit for a value that can't be what the annotation says.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, get_args, get_origin

from taskharbor.codec import records
from taskharbor.codec.records import Unresolved
from taskharbor.codec.refusal import step
from taskharbor.codec.text import one_line
from taskharbor.errors import DecodeError

Converter = Callable[[Any], Any]

_LONGEST_SHOWN = 80
_LONGEST_REASON = 500
_MOST_NAMES = 20


class Misfit(Exception):
    """A value is not what its annotation says; ``path`` leads to it, innermost step first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def __str__(self) -> str:
        return f"{''.join(reversed(self.path)).lstrip('.') or 'it'} {self.reason}"


# --- classes ----------------------------------------------------------------------------------


def of_enum(cls: type[Enum]) -> Converter:
    """From a member's value, else from its name."""

    def convert(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if type(value) is Unresolved:
            value = value.take()
            if type(value) is str:
                return _member(cls, value)
        try:
            return cls(value)
        except Exception:  # noqa: BLE001 - whatever a user's _missing_ raises
            return _member(cls, value)

    return convert


def _member(cls: type[Enum], name: Any) -> Enum:
    member = cls.__members__.get(name) if type(name) is str else None
    if member is None:
        names = ", ".join(list(cls.__members__)[:_MOST_NAMES])
        raise Misfit(f"is {_show(name)}, which is neither value nor name in {_name(cls)}: {names}")
    return member


class DataclassConverter:
    """From a dict of its fields. Strict about their names: such a dict is written by hand.

    ``fields`` gives the converters of fields; asked at the first dict, for a dataclass may hold its
    own kind.
    """

    def __init__(self, cls: Any, fields: Callable[[], dict[str, Converter]]) -> None:
        self.cls = cls
        self._compile_fields = fields
        self._fields: dict[str, Converter] | None = None

    def __call__(self, value: Any) -> Any:
        if isinstance(value, self.cls):
            return value
        values = self._values(value)
        if self._fields is None:
            self._fields = self._compile_fields()
        return _construct(self._build, self.cls, _convert_fields(values, self._fields))

    def _values(self, value: Any) -> dict[str, Any]:
        if type(value) is Unresolved:
            return _given(self.cls, value)
        return _known(self.cls, _given(self.cls, value), records.field_names(self.cls))

    _build = staticmethod(records.build_dataclass)


class NamedTupleConverter(DataclassConverter):
    """From a dict of its fields, or a list of their values."""

    def _values(self, value: Any) -> dict[str, Any]:
        names = self.cls._fields
        if type(value) in (list, tuple) and len(value) <= len(names):
            return dict(zip(names, value, strict=False))
        if type(value) is Unresolved:
            return _given(self.cls, value)
        return _known(self.cls, _given(self.cls, value), names)

    _build = staticmethod(records.build_namedtuple)


def of_model(cls: Any) -> Converter:
    """From whatever the model itself accepts."""

    def convert(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if type(value) is Unresolved:
            return _construct(records.validate_model, cls, _plain(value))
        return _construct(lambda _, given: cls.model_validate(given), cls, value)

    return convert


def of_typed_dict(cls: type, fields: dict[str, Converter]) -> Converter:
    return lambda value: _convert_fields(_given(cls, value), fields)


def _construct(build: Callable[[Any, Any], Any], cls: Any, values: Any) -> Any:
    try:
        return build(cls, values)
    except RecursionError:
        raise
    except Exception as error:
        # The user's own constructor or validator: whatever it raises means the same.
        text = str(error) if isinstance(error, DecodeError) else one_line(error, _LONGEST_REASON)
        raise Misfit(f"can't become a {_name(cls)}: {text}") from error


def _given(cls: type, value: Any) -> dict[str, Any]:
    if type(value) is Unresolved:
        value = value.take()
    if type(value) is not dict:
        raise Misfit(f"is {_show(value)}, not a {_name(cls)} or a dict of its fields")
    return value


def _known(cls: type, values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    unknown = [name for name in values if name not in names]
    if unknown:
        raise Misfit(
            f"has {_show(unknown[0])}, which is no field of {_name(cls)}: {', '.join(names)}"
        )
    return values


def _convert_fields(values: dict[str, Any], converters: dict[str, Converter]) -> dict[str, Any]:
    converted = dict(values)
    name = ""
    try:
        for name, converter in converters.items():
            if name in values:
                converted[name] = converter(values[name])
    except Misfit as misfit:
        misfit.path.append(f".{name}")
        raise
    return converted if _differ(values.values(), converted.values()) else values


def _plain(value: Any) -> Any:
    """With records of unknown classes as dicts, for a pydantic model to make what it wants of."""
    if type(value) is Unresolved:
        return _plain(value.take())
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_plain(item) for item in value)
    return value


# --- collections ------------------------------------------------------------------------------


def of_collection(origin: Any, item: Converter, is_set: bool) -> Converter:
    """``origin``: tuple, list, set, frozenset, or one of their abstract classes."""
    concrete = origin in (tuple, list, set, frozenset)

    def convert(value: Any) -> Any:
        if type(value) not in (list, tuple, set, frozenset):
            raise Misfit(f"is {_show(value)}, not a {origin.__name__.lower()}")
        items = _items(value, item)
        if isinstance(value, origin):
            return _made(type(value), items) if _differ(value, items) else value
        return _made(origin if concrete else set if is_set else list, items)

    return convert


def _made(kind: Any, items: list[Any]) -> Any:
    try:
        return kind(items)
    except Exception as error:
        # __hash__ and __eq__ of the user's classes run here.
        raise Misfit(f"can't become a {_name(kind)}: {one_line(error)}") from error


def of_tuple(converters: list[Converter | None]) -> Converter:
    """A tuple with an annotation for each item."""

    def convert(value: Any) -> Any:
        if type(value) not in (list, tuple) or len(value) != len(converters):
            raise Misfit(f"is {_show(value)}, not a tuple of {len(converters)}")
        pairs = zip(value, converters, strict=True)
        items = _items(pairs, lambda pair: pair[1](pair[0]) if pair[1] else pair[0])
        return tuple(items) if type(value) is list or _differ(value, items) else value

    return convert


def of_mapping(for_key: Converter | None, for_value: Converter | None) -> Converter:
    def convert(value: Any) -> Any:
        if type(value) is not dict:
            raise Misfit(f"is {_show(value)}, not a dict")
        pairs: list[tuple[Any, Any]] = []
        key = None
        try:
            for key, item in value.items():
                new_key = for_key(key) if for_key else key
                pairs.append((new_key, for_value(item) if for_value else item))
        except Misfit as misfit:
            misfit.path.append(step(key))
            raise
        same = all(k is a and v is b for (k, v), (a, b) in zip(pairs, value.items(), strict=True))
        return value if same else _made(dict, pairs)

    return convert


def _items(values: Iterable[Any], converter: Converter) -> list[Any]:
    items: list[Any] = []
    try:
        for value in values:
            items.append(converter(value))  # noqa: PERF401 - its length is the index in an error
    except Misfit as misfit:
        misfit.path.append(f"[{len(items)}]")
        raise
    return items


def _differ(before: Iterable[Any], after: Iterable[Any]) -> bool:
    return any(a is not b for a, b in zip(before, after, strict=False))


# --- unions -----------------------------------------------------------------------------------


def of_union(converters: list[Converter], plain: list[Any]) -> Converter:
    """What is a ``plain`` member already stays; else the one converter that takes the value."""

    def convert(value: Any) -> Any:
        if any(_fits(value, member) for member in plain):
            return value
        return _only_fit(value, converters)

    return convert


def _only_fit(value: Any, converters: list[Converter]) -> Any:
    fits, misfits = [], []
    for converter in converters:
        try:
            fit = converter(value)
        except Misfit as misfit:
            misfits.append(misfit)
            continue
        if fit is value:
            return value
        fits.append(fit)
    if len(fits) == 1:
        return fits[0]
    if fits:
        kinds = " and ".join(_name(type(fit)) for fit in fits)
        raise Misfit(f"could be {kinds} alike; pass an instance of the one that is meant")
    if len(misfits) == 1:
        raise misfits[0]
    raise Misfit("fits no member of the union: " + "; or ".join(map(str, misfits)))


def _fits(value: Any, member: Any) -> bool:
    """Whether ``value`` may pass as ``member``, an annotation that nothing is converted to."""
    origin = get_origin(member) or member
    if origin is typing.Literal:
        return any(type(value) is type(a) and value == a for a in get_args(member))
    if not isinstance(origin, type):
        return type(value) is not Unresolved  # Any, a type variable
    if origin is float:
        return type(value) in (int, float)
    try:
        return isinstance(value, origin)
    except TypeError:
        return True  # a Protocol that can't be checked


# --- error texts ------------------------------------------------------------------------------


def _name(cls: type) -> str:
    return cls.__qualname__


def _show(value: Any) -> str:
    """A value in an error text: its type, and itself where that is short and safe."""
    if type(value) is str:
        shown = value if len(value) <= _LONGEST_SHOWN else value[: _LONGEST_SHOWN - 1] + "…"
        return repr(shown)
    if value is None or type(value) in (bool, float):
        return repr(value)
    if type(value) is int and value.bit_length() <= 128:
        return repr(value)
    return f"a {type(value).__qualname__}"
