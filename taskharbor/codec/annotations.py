"""From an annotation to the converter of its values."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, get_args, get_origin

from taskharbor.codec import convert, records
from taskharbor.codec.convert import Converter


@dataclass(frozen=True, slots=True)
class Scope:
    """What the type variables of a generic class stand for, and what is being compiled."""

    variables: Mapping[Any, Any] = field(default_factory=dict)
    inside: Mapping[Any, _Knot] = field(default_factory=dict)


class _Knot:
    """Stands for the converter of an annotation inside of itself."""

    def __init__(self) -> None:
        self.met = False
        self.converter: Converter | None = None

    def __call__(self, value: Any) -> Any:
        return self.converter(value) if self.converter else value


_SEQUENCES = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_LONGEST_CHAIN = 20
_NOWHERE = Scope()


def resolve(owner: Any, annotations: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations of ``owner`` as types, without those that do not evaluate (yet)."""
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


def converter_for(hint: Any, scope: Scope = _NOWHERE) -> Converter | None:
    """None: values of this annotation are passed through."""
    hint = _strip(hint, scope)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, scope)
    if _is_alias(origin or hint):
        return _alias(origin or hint, arguments, scope)
    if origin is None:
        return _of_class(hint, scope) if isinstance(hint, type) else None
    if origin is tuple:
        return _tuple(arguments, scope)
    if origin in _MAPPINGS and len(arguments) == 2:
        for_key, for_value = (converter_for(argument, scope) for argument in arguments)
        return convert.of_mapping(for_key, for_value) if for_key or for_value else None
    if origin in _SETS or origin in _SEQUENCES:
        item = converter_for(arguments[0], scope)
        return convert.of_collection(origin, item, origin in _SETS) if item else None
    if isinstance(origin, type):
        return _of_class(origin, _bind(getattr(origin, "__parameters__", ()), arguments, scope))
    return None


def _strip(hint: Any, scope: Scope) -> Any:
    """Without Annotated and NewType, and with type variables replaced."""
    for _ in range(_LONGEST_CHAIN):
        if isinstance(hint, TypeVar):
            hint = scope.variables.get(hint)
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif get_origin(hint) is typing.Annotated:
            hint = get_args(hint)[0]
        else:
            break
    return hint


def _bind(names: tuple[Any, ...], arguments: tuple[Any, ...], scope: Scope) -> Scope:
    variables = scope.variables
    bound = (variables.get(a, a) if isinstance(a, TypeVar) else a for a in arguments)
    return Scope(dict(zip(names, bound, strict=False)), scope.inside)


def _is_alias(hint: Any) -> bool:
    return type(hint).__name__ == "TypeAliasType"  # type X = …, of typing or typing_extensions


def _alias(alias: Any, arguments: tuple[Any, ...], scope: Scope) -> Converter | None:
    scope = _bind(alias.__type_params__, arguments, scope)
    return _tied(alias, scope, lambda inner: converter_for(_value_of(alias), inner))


def _value_of(alias: Any) -> Any:
    try:
        return alias.__value__
    except Exception:  # noqa: BLE001 - evaluates what the user wrote: it can't be known here
        return None


def _of_class(cls: Any, scope: Scope) -> Converter | None:
    if issubclass(cls, Enum):
        return convert.of_enum(cls)
    if is_dataclass(cls):
        annotations = {f.name: f.type for f in fields(cls)}
        outside = Scope(scope.variables)
        return convert.DataclassConverter(cls, lambda: _of_fields(cls, annotations, outside))
    if records.is_namedtuple(cls):
        annotations = getattr(cls, "__annotations__", {})
        return convert.NamedTupleConverter(cls, lambda: _of_fields(cls, annotations, _NOWHERE))
    if records.is_model(cls):
        return convert.of_model(cls)
    if typing.is_typeddict(cls):
        return _tied(cls, scope, lambda inner: _typed_dict(cls, inner))
    return None


def _typed_dict(cls: Any, scope: Scope) -> Converter | None:
    converters = _of_fields(cls, cls.__annotations__, scope)
    return convert.of_typed_dict(cls, converters) if converters else None


def _tied(
    key: Any, scope: Scope, compile_in: Callable[[Scope], Converter | None]
) -> Converter | None:
    """The converter of an annotation that may contain itself.

    A first round, in which it means nothing inside of itself, tells whether there is anything to
    convert at all; if so and it was met again, a second one ties it to itself.
    """
    if key in scope.inside:
        knot = scope.inside[key]
        knot.met = True
        return knot if knot.converter else None
    knot = _Knot()
    inner = Scope(scope.variables, {**scope.inside, key: knot})
    knot.converter = compile_in(inner)
    if knot.met and knot.converter:
        knot.converter = compile_in(inner)
    return knot.converter


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
    for member in _flat(members, scope):
        converter = converter_for(member, scope)
        if converter is None:
            plain.append(member)
        else:
            converters.append(converter)
    return convert.of_union(converters, plain) if converters else None


def _flat(members: tuple[Any, ...], scope: Scope) -> Iterator[Any]:
    """The members of a union, with those of the unions that its aliases stand for."""
    for member in members:
        stripped = _strip(member, scope)
        if _is_alias(stripped):
            stripped = _strip(_value_of(stripped), scope)
        if get_origin(stripped) in (typing.Union, types.UnionType):
            yield from _flat(get_args(stripped), scope)
        else:
            yield stripped
