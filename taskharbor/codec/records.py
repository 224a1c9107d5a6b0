"""Values of a user's own class: Enum, dataclass, NamedTuple, pydantic model.

On the wire stands the name of the class (classes.py) and its fields by name. A class is accepted
only if it really is of the kind that the wire says.

A record is its fields. What an object holds beside them (a lock made in ``__post_init__``, a cached
property, a private attribute) does not travel; it is made again where the record is rebuilt. Fields
that a newer class added take their defaults, fields that it dropped are passed over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum, Flag
from functools import lru_cache
from typing import Any
from zlib import crc32

from taskharbor.codec.classes import UnknownClass, class_name, find_class
from taskharbor.codec.leaves import read_text, write_text
from taskharbor.codec.refusal import Refused
from taskharbor.codec.text import one_line
from taskharbor.errors import DecodeError

# Extension codes, beside those of leaves.py. A released code is never given another meaning.
ENUM, FLAG = 16, 17
DATACLASS, NAMEDTUPLE, MODEL = 36, 37, 38

_BUILTIN_BASES = (str, int, float, complex, bytes, bytearray, tuple, list, dict, set, frozenset)
# Room for a name and a thousand flags: what it takes to combine flags grows with their number.
_LONGEST_FLAG = 1024
_ABSENT = object()


class Unresolved:
    """A value of an unknown class, set aside for a parameter's annotation to say what it is.

    ``content``: the fields of a record, the name of an Enum's member, the number of a Flag's.
    """

    __slots__ = ("content", "error", "taken")

    def __init__(self, content: Any, error: UnknownClass) -> None:
        self.content = content
        self.error = error
        self.taken = False

    def take(self) -> Any:
        self.taken = True
        return self.content


# --- Enum -------------------------------------------------------------------------------------


def write_enum(member: Enum) -> tuple[int, bytes]:
    """A member by its name, which survives a change of its value; flags, which combine, by
    value."""
    cls = type(member)
    name = class_name(cls)
    if isinstance(member, Flag):
        return FLAG, _checked_flag(write_text(f"{name}\n{member._value_:x}"))
    if cls.__members__.get(member._name_) is not member:
        raise Refused(f"is a {cls!r} that its class does not list; pass its value")
    return ENUM, write_text(f"{name}\n{member._name_}")


def _checked_flag(data: bytes) -> bytes:
    if len(data) > _LONGEST_FLAG:
        raise Refused(f"is a Flag of more than {_LONGEST_FLAG:,} bytes; pass its value")
    return data


def read_enum(data: bytes) -> Enum:
    name, _, member_name = read_text(data).partition("\n")
    cls: Any = find_class(name, "an Enum", lambda cls: issubclass(cls, Enum))
    member = cls.__members__.get(member_name)
    if member is None:
        raise DecodeError(f"{name} has no member {member_name[:80]!r}; keep it until such jobs ran")
    return member  # type: ignore[no-any-return]


def read_flag(data: bytes) -> Enum:
    if len(data) > _LONGEST_FLAG:
        raise DecodeError(f"a Flag of more than {_LONGEST_FLAG:,} bytes")
    name, _, value = read_text(data).partition("\n")
    cls: Any = find_class(name, "a Flag", lambda cls: issubclass(cls, Flag))
    return cls(int(value, 16))  # type: ignore[no-any-return]


def unresolved_enum(code: int, data: bytes, error: UnknownClass) -> Unresolved:
    member = read_text(data).partition("\n")[2]
    return Unresolved(int(member, 16) if code == FLAG else member, error)


# --- records ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """How the records of one class are written: code, wire name, and how to read the fields."""

    code: int
    name: str
    values: Callable[[Any], Iterable[tuple[str, Any]]]


@lru_cache(maxsize=1024)
def shape_of(cls: type) -> Shape | None:
    """None: not a record. Raises Refused for a record that could not be rebuilt."""
    if is_dataclass(cls):
        _check_rebuildable(cls)
        names = tuple(field.name for field in fields(cls))
        return Shape(DATACLASS, class_name(cls), lambda v: _attributes(v, names))
    if is_namedtuple(cls):
        return Shape(NAMEDTUPLE, class_name(cls), lambda v: zip(v._fields, v, strict=True))
    if is_model(cls):
        return Shape(MODEL, class_name(cls), _model_values)
    return None


def _attributes(record: object, names: tuple[str, ...]) -> list[tuple[str, Any]]:
    try:
        return [(name, getattr(record, name)) for name in names]
    except AttributeError as error:
        raise Refused(f"is a {type(record)!r} without a value for a field: {error}") from error


def _check_rebuildable(cls: type) -> None:
    if issubclass(cls, _BUILTIN_BASES):
        raise Refused(
            f"is a {cls!r}, which is more than its fields (a dataclass on top of a builtin type); "
            "hold the builtin value in a field"
        )
    if issubclass(cls, BaseException):
        raise Refused(f"is a {cls!r}, an exception; pass its data, or raise it to fail the job")
    arguments = dict.fromkeys(field.name for field in fields(cls) if field.init)  # type: ignore[arg-type]
    try:
        inspect.signature(cls).bind(**arguments)
    except (TypeError, ValueError) as error:
        raise Refused(
            f"is a {cls!r}, which can't be made from its fields ({error}); give an InitVar a "
            "default, and leave __init__ to @dataclass"
        ) from error


def is_namedtuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_field_defaults")


def is_model(cls: type) -> bool:
    """A pydantic (v2) model, told by its methods so that pydantic need not be imported."""
    return hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_validate")


def _model_values(model: Any) -> Iterable[tuple[str, Any]]:
    # Not model_dump(): it turns nested models into dicts by their declared type and loses what a
    # subclass adds. Each value is encoded as what it is.
    cls: Any = type(model)
    state = vars(model)
    values = {name: state[name] for name in cls.model_fields if name in state}
    values |= model.__pydantic_extra__ or {}
    unset = [name for name in values if name not in model.model_fields_set]
    return [(ABOUT_MODEL, [_fingerprint(cls), *unset]), *values.items()]


ABOUT_MODEL = "\0"
"""Before the fields of a pydantic model: the fingerprint of its class, and the names of the fields
that were not set explicitly."""


@lru_cache(maxsize=1024)
def _fingerprint(cls: Any) -> int:
    """A number that changes when a field of the model, or its type, does."""
    return crc32(repr([(n, field.annotation) for n, field in cls.model_fields.items()]).encode())


# --- rebuilding -------------------------------------------------------------------------------


def build_record(code: int, name: str, values: dict[str, Any]) -> Any:
    """The record that was written. Raises DecodeError."""
    described, is_kind, build = _KINDS[code]
    cls = find_class(name, described, is_kind)
    try:
        return build(cls, values)
    except DecodeError:
        raise
    except Exception as error:
        # Anything: the user's constructor or validators run here.
        raise DecodeError(f"can't make a {name} of its fields: {one_line(error)}") from error


def build_dataclass(cls: Any, values: dict[str, Any]) -> Any:
    """Call the class, so that what is no field is made too, then put every field back as it was,
    so that a ``__post_init__`` that changes fields does not change them twice."""
    layout = _layout_of(cls)
    if not layout.required <= values.keys():
        raise missing_field(cls, min(layout.required - values.keys()))
    record = cls(**{name: values[name] for name in values if name in layout.arguments})
    for name in layout.fields:
        value = values.get(name, _ABSENT)
        if value is not _ABSENT and getattr(record, name, _ABSENT) is not value:
            object.__setattr__(record, name, value)
    return record


@dataclass(frozen=True, slots=True)
class _Layout:
    fields: tuple[str, ...]
    required: frozenset[str]
    arguments: frozenset[str]
    """What the constructor takes: fields and InitVars."""


@lru_cache(maxsize=1024)
def _layout_of(cls: Any) -> _Layout:
    required = (
        field.name
        for field in fields(cls)
        if field.init and field.default is MISSING and field.default_factory is MISSING
    )
    return _Layout(
        tuple(field.name for field in fields(cls)),
        frozenset(required),
        frozenset(inspect.signature(cls).parameters),
    )


def field_names(cls: Any) -> tuple[str, ...]:
    """All that :func:`build_dataclass` takes."""
    layout = _layout_of(cls)
    return (*layout.fields, *sorted(layout.arguments.difference(layout.fields)))


def missing_field(cls: type, name: str) -> DecodeError:
    return DecodeError(
        f"no value for the field {name!r} of {cls.__qualname__}; if the field is new, give it a "
        "default until jobs enqueued before it have run"
    )


def build_namedtuple(cls: Any, values: dict[str, Any]) -> Any:
    complete = cls._field_defaults | values
    for name in cls._fields:
        if name not in complete:
            raise missing_field(cls, name)
    return cls._make(complete[name] for name in cls._fields)


def _build_model(cls: Any, values: dict[str, Any]) -> Any:
    """As it was, without a validator, if its class is as it was; else validated."""
    fingerprint, *unset = values.pop(ABOUT_MODEL)
    known = cls.model_fields
    if cls.model_config.get("extra") != "allow":
        values = {name: value for name, value in values.items() if name in known}
    if fingerprint == _fingerprint(cls) and all(name in values for name in known):
        return cls.model_construct(_fields_set=set(values).difference(unset), **values)
    return validate_model(cls, {n: v for n, v in values.items() if n not in unset})


def validate_model(cls: Any, values: dict[str, Any]) -> Any:
    """The model made of values that stand under the names of its fields."""
    return cls.model_validate(values, **_by_name(cls))


@lru_cache(maxsize=1024)
def _by_name(cls: Any) -> dict[str, bool]:
    # Values stand under the names of fields, which pydantic 2.11 accepts beside aliases.
    return (
        {"by_name": True} if "by_name" in inspect.signature(cls.model_validate).parameters else {}
    )


_KINDS: dict[int, tuple[str, Callable[[type], bool], Callable[[Any, dict[str, Any]], Any]]] = {
    DATACLASS: ("a dataclass", is_dataclass, build_dataclass),
    NAMEDTUPLE: ("a NamedTuple", is_namedtuple, build_namedtuple),
    MODEL: ("a pydantic model", is_model, _build_model),
}
