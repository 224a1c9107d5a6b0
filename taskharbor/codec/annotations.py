"""From an annotation to the converter of its values."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, get_args, get_origin

from taskharbor.codec import convert, records
from taskharbor.codec.convert import Converter

Scope = Mapping[Any, Any]
"""What the type variables of a generic class stand for."""

_SEQUENCES = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_LONGEST_ALIAS_CHAIN = 20


def resolve(owner: Any, annotations: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations of ``owner`` as types, without those that do not evaluate here."""
    try:
        return typing.get_type_hints(owner)
    except Exception:  # noqa: BLE001 - evaluates what the user wrote: one by one, then
        return dict(_resolve_each(owner, annotations))


def _resolve_each(owner: Any, annotations: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    module = inspect.getmodule(owner)
    namespace = getattr(owner, "__globals__", None) or (vars(module) if module else {})
    for name, annotation in annotations.items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            yield name, typing.get_type_hints(holder, globalns=namespace)[name]
        except Exception:  # noqa: BLE001 - this one can't be known here, so it is not converted
            continue


def converter_for(hint: Any, scope: Scope) -> Converter | None:
    """None: values of this annotation are passed through."""
    hint = _strip(hint, scope)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, scope)
    if origin is None:
        return _of_class(hint, {}) if isinstance(hint, type) else None
    if origin is tuple:
        return _tuple(arguments, scope)
    if origin in _MAPPINGS and len(arguments) == 2:
        for_key, for_value = (converter_for(argument, scope) for argument in arguments)
        return convert.of_mapping(for_key, for_value) if for_key or for_value else None
    if origin in _SETS or origin in _SEQUENCES:
        item = converter_for(arguments[0], scope)
        return convert.of_collection(origin, item, origin in _SETS) if item else None
    if isinstance(origin, type):
        bound = (scope.get(a, a) if isinstance(a, TypeVar) else a for a in arguments)
        names = getattr(origin, "__parameters__", ())
        return _of_class(origin, dict(zip(names, bound, strict=False)))
    return None


def _strip(hint: Any, scope: Scope) -> Any:
    """Without Annotated, NewType, ``type X = …``, and with type variables replaced."""
    for _ in range(_LONGEST_ALIAS_CHAIN):
        if isinstance(hint, TypeVar):
            hint = scope.get(hint)
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif get_origin(hint) is typing.Annotated:
            hint = get_args(hint)[0]
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        else:
            break
    return hint


def _of_class(cls: Any, scope: Scope) -> Converter | None:
    if issubclass(cls, Enum):
        return convert.of_enum(cls)
    if is_dataclass(cls):
        annotations = {field.name: field.type for field in fields(cls)}
        return convert.DataclassConverter(cls, lambda: _of_fields(cls, annotations, scope))
    if records.is_namedtuple(cls):
        annotations = getattr(cls, "__annotations__", {})
        return convert.NamedTupleConverter(cls, lambda: _of_fields(cls, annotations, scope))
    if records.is_model(cls):
        return convert.of_model(cls)
    if typing.is_typeddict(cls):
        converters = _of_fields(cls, cls.__annotations__, scope)
        return convert.of_typed_dict(cls, converters) if converters else None
    return None


def _of_fields(cls: Any, annotations: Mapping[str, Any], scope: Scope) -> dict[str, Converter]:
    hints = resolve(cls, annotations)
    found = ((name, converter_for(hint, scope)) for name, hint in hints.items())
    return {name: converter for name, converter in found if converter is not None}


def _tuple(arguments: tuple[Any, ...], scope: Scope) -> Converter | None:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        item = converter_for(arguments[0], scope)
        return convert.of_collection(tuple, item, False) if item else None
    items = [converter_for(argument, scope) for argument in arguments]
    return convert.of_tuple(items) if any(items) else None


def _union(members: tuple[Any, ...], scope: Scope) -> Converter | None:
    converters, plain = [], []
    for member in members:
        converter = converter_for(member, scope)
        if converter is None:
            plain.append(_strip(member, scope))
        else:
            converters.append(converter)
    return convert.of_union(converters, plain) if converters else None
