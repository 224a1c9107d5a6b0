"""Values of a user's own class: Enum, dataclass, NamedTuple, pydantic model.

On the wire stands the class as ``module:qualname`` and its fields by name. A class is looked up
only among modules that are already imported, without calling anything of them, and only accepted
if it really is of the kind that the wire says: bytes can neither import code nor name a function.

A record is its fields. What an object holds beside them (a lock made in ``__post_init__``, a cached
property, a private attribute) does not travel; it is made again where the record is rebuilt. Fields
that a newer class added take their defaults, fields that it dropped are passed over.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum, Flag
from functools import lru_cache
from types import ModuleType
from typing import Any

from taskharbor.codec.leaves import read_text, write_text
from taskharbor.codec.refusal import Refused
from taskharbor.errors import DecodeError

# Extension codes, beside those of leaves.py. A released code is never given another meaning.
ENUM, FLAG = 16, 17
DATACLASS, NAMEDTUPLE, MODEL = 36, 37, 38

_BUILTIN_BASES = (str, int, float, complex, bytes, bytearray, tuple, list, dict, set, frozenset)
_ABSENT = object()


class UnknownClass(DecodeError):
    """No imported module has the class that the bytes name."""


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


# --- names ------------------------------------------------------------------------------------


def class_name(cls: type) -> str:
    """``module:qualname``, under which :func:`find_class` finds ``cls`` again.

    Raises Refused for a class that no other process could find.
    """
    if "<locals>" in cls.__qualname__:
        raise Refused(
            f"is a {cls.__qualname__}, a class made inside a function, which a worker can't find; "
            "move the class to the top of its module"
        )
    module = _main_name() if cls.__module__ in _MAIN else cls.__module__
    name = f"{module}:{cls.__qualname__}"
    if _look_up(name) is not cls:
        raise Refused(
            f"is a {cls!r}, but {name} is something else; give the class its own name at the top "
            "of its module"
        )
    return name


def find_class(name: str, kind: str, is_kind: Callable[[type], bool]) -> type:
    """The class called ``name`` if an imported module has it and it is of the kind; else raises."""
    cls = _look_up(name)
    if cls is None:
        module = name.partition(":")[0]
        raise UnknownClass(
            f"the class {name[:200]!r} is not known here: import {module[:200]} in the worker's "
            "app, or annotate the parameter with the class; where it moved, leave an import of it "
            "behind in its old module"
        )
    if not is_kind(cls):
        raise DecodeError(f"{name[:200]!r} is not {kind}")
    return cls


def _look_up(name: str) -> type | None:
    module_name, _, qualname = name.partition(":")
    module = sys.modules.get("__main__" if module_name == _main_name() else module_name)
    if not isinstance(module, ModuleType):
        return None
    # Namespaces are read directly: getattr() would run a module's __getattr__, a lazy import.
    namespace: Any = ModuleType.__getattribute__(module, "__dict__")
    found: object = None
    for part in qualname.split("."):
        found = namespace.get(part)
        if not isinstance(found, type):
            return None
        namespace = type.__dict__["__dict__"].__get__(found)
    return found if isinstance(found, type) else None


_MAIN = ("__main__", "__mp_main__")


def _main_name() -> str:
    """What a worker that imports the script of this process would call it.

    ``python shop.py`` runs as ``__main__``; the worker knows the same file as ``shop``.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return file.rpartition("/")[2].removesuffix(".py") if isinstance(file, str) else "__main__"


# --- Enum -------------------------------------------------------------------------------------


def write_enum(member: Enum) -> tuple[int, bytes]:
    """A member by its name, which survives a change of its value; flags, which combine, by
    value."""
    name = class_name(type(member))
    if isinstance(member, Flag):
        return FLAG, write_text(f"{name}\n{member._value_:x}")
    return ENUM, write_text(f"{name}\n{member._name_}")


def read_enum(data: bytes) -> Enum:
    name, _, member_name = read_text(data).partition("\n")
    cls: Any = find_class(name, "an Enum", lambda cls: issubclass(cls, Enum))
    member = cls.__members__.get(member_name)
    if member is None:
        raise DecodeError(f"{name} has no member {member_name[:80]!r}; keep it until such jobs ran")
    return member  # type: ignore[no-any-return]


def read_flag(data: bytes) -> Enum:
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
    state = vars(model)
    values = {name: state[name] for name in type(model).model_fields if name in state}
    values |= model.__pydantic_extra__ or {}
    unset = [name for name in values if name not in model.model_fields_set]
    return [(UNSET, unset), *values.items()] if unset else values.items()


UNSET = "\0unset"
"""Before the fields of a pydantic model: the names of those that were not set explicitly."""


# --- rebuilding -------------------------------------------------------------------------------


def build_record(code: int, name: str, values: dict[str, Any]) -> Any:
    """The record that was written. Raises DecodeError (or whatever its class raises)."""
    if code == DATACLASS:
        return build_dataclass(find_class(name, "a dataclass", is_dataclass), values)
    if code == NAMEDTUPLE:
        return build_namedtuple(find_class(name, "a NamedTuple", is_namedtuple), values)
    return _build_model(find_class(name, "a pydantic model", is_model), values)


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
    """As it was, unvalidated, while the class has the fields it had; else validated."""
    unset = values.pop(UNSET, ())
    known = cls.model_fields
    if cls.model_config.get("extra") != "allow":
        values = {name: value for name, value in values.items() if name in known}
    if all(name in values for name in known):
        return cls.model_construct(_fields_set=set(values).difference(unset), **values)
    given = {name: value for name, value in values.items() if name not in unset}
    return validate_model(cls, given)


def validate_model(cls: Any, values: dict[str, Any]) -> Any:
    """The model made of values that stand under the names of its fields."""
    return cls.model_validate(values, **_by_name(cls))


@lru_cache(maxsize=1024)
def _by_name(cls: Any) -> dict[str, bool]:
    # Values stand under the names of fields, which pydantic 2.11 accepts beside aliases.
    return (
        {"by_name": True} if "by_name" in inspect.signature(cls.model_validate).parameters else {}
    )
