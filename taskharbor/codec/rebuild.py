"""Arguments made into what their parameters are annotated with.

A record that was passed as itself arrives as itself and is left alone. This is for callers that
have only plain data (the command line, HTTP, another language: a dict for a dataclass, a string for
an Enum member) and for records whose class is no longer found under the name it was sent with.

It is no type checker: only annotations that name a dataclass, NamedTuple, TypedDict, pydantic model
or Enum, alone or inside Optional, unions and collections, are looked at; an ``int`` parameter takes
whatever comes.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum, Flag
from typing import Any, TypeVar, get_args, get_origin

from taskharbor.codec import records
from taskharbor.codec.records import Unresolved
from taskharbor.codec.refusal import step
from taskharbor.errors import DecodeError

Converter = Callable[[Any], Any]
"""Returns the value as annotated, the same object if it is right already; raises Misfit."""

Scope = Mapping[Any, Any]
"""What the type variables of a generic dataclass stand for."""

Rebuild = Callable[[list[Any], dict[str, Any]], tuple[list[Any], dict[str, Any]]]

_SEQUENCES = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class Misfit(Exception):
    """A value is not what its annotation says; ``path`` leads to it, innermost step first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def __str__(self) -> str:
        return f"{''.join(reversed(self.path)).lstrip('.')} {self.reason}".lstrip()


def rebuilder(fn: Callable[..., Any], *, skip: int = 0) -> Rebuild | None:
    """How to convert the arguments of a call of ``fn``; None when there is nothing to convert.

    ``skip``: leading parameters that are no part of the call (``self`` of a bound task). The
    function returned raises DecodeError, naming the parameter, for a value that does not fit.
    Annotations that can't be resolved (imported under TYPE_CHECKING only) are passed over.
    """
    fn = inspect.unwrap(fn)
    parameters = list(inspect.signature(fn).parameters.values())[skip:]
    hints = _resolve(fn, {p.name: p.annotation for p in parameters})
    converters: dict[str, Converter] = {}
    for parameter in parameters:
        converter = _converter(hints.get(parameter.name), {})
        if converter is not None:
            optional = parameter.default is None
            converters[parameter.name] = _or_none(converter) if optional else converter
    return _Call(parameters, converters) if converters else None


class _Call:
    """Converts the arguments of one call; see :func:`rebuilder`."""

    def __init__(
        self, parameters: list[inspect.Parameter], converters: dict[str, Converter]
    ) -> None:
        takes = inspect.Parameter
        self._positional = [
            (p.name, converters.get(p.name))
            for p in parameters
            if p.kind in (takes.POSITIONAL_ONLY, takes.POSITIONAL_OR_KEYWORD)
        ]
        rest = next((p.name for p in parameters if p.kind is takes.VAR_POSITIONAL), "")
        extra = next((p.name for p in parameters if p.kind is takes.VAR_KEYWORD), "")
        self._rest = (rest, converters.pop(rest, None))
        self._extra = converters.pop(extra, None)
        self._keywords = converters
        self._names = {p.name for p in parameters if p.name not in (rest, extra)}

    def __call__(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        for index, value in enumerate(args):
            known = index < len(self._positional)
            name, converter = self._positional[index] if known else self._rest
            if converter is not None:
                args[index] = _convert(converter, value, name)
        for name, value in kwargs.items():
            converter = self._keywords.get(name) if name in self._names else self._extra
            if converter is not None:
                kwargs[name] = _convert(converter, value, name)
        return args, kwargs


def _convert(converter: Converter, value: Any, parameter: str) -> Any:
    try:
        return converter(value)
    except Misfit as misfit:
        raise DecodeError(f"the argument {parameter!r} does not fit: {misfit}") from misfit
    except RecursionError as error:
        raise DecodeError(f"the argument {parameter!r} is nested too deep") from error


# --- annotations ------------------------------------------------------------------------------


def _resolve(owner: Any, annotations: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations as types, without those that do not evaluate here."""
    try:
        return typing.get_type_hints(owner)
    except Exception:  # noqa: BLE001 - evaluates the user's annotations: one by one, then
        return dict(_resolve_each(owner, annotations))


def _resolve_each(owner: Any, annotations: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    module = inspect.getmodule(owner)
    namespace = getattr(owner, "__globals__", None) or vars(module) if module else {}
    for name, annotation in annotations.items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            yield name, typing.get_type_hints(holder, globalns=namespace)[name]
        except Exception:  # noqa: BLE001 - not resolvable here, so not converted
            continue


def _converter(hint: Any, scope: Scope) -> Converter | None:
    """None: values of this annotation are passed through."""
    hint = _strip(hint, scope)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, scope)
    if origin is None:
        return _class_converter(hint, scope) if isinstance(hint, type) else None
    if isinstance(origin, type) and is_dataclass(origin):
        names = getattr(origin, "__parameters__", ())
        bound = (_substitute(argument, scope) for argument in arguments)
        return _class_converter(origin, dict(zip(names, bound, strict=False)))
    if origin is tuple:
        return _tuple(arguments, scope)
    if origin in _MAPPINGS:
        return _mapping(arguments, scope)
    if origin in _SETS or origin in _SEQUENCES:
        return _collection(origin, arguments, scope)
    return None


def _strip(hint: Any, scope: Scope) -> Any:
    """Without Annotated, NewType, ``type X = …``, and with type variables replaced."""
    for _ in range(20):
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


def _substitute(hint: Any, scope: Scope) -> Any:
    return scope.get(hint) if isinstance(hint, TypeVar) else hint


def _class_converter(cls: type, scope: Scope) -> Converter | None:
    if issubclass(cls, Enum):
        return _EnumConverter(cls)
    if is_dataclass(cls):
        return _DataclassConverter(cls, scope)
    if records.is_namedtuple(cls):
        return _NamedTupleConverter(cls)
    if records.is_model(cls):
        return _ModelConverter(cls)
    if typing.is_typeddict(cls):
        return _typed_dict(cls)
    return None


# --- classes ----------------------------------------------------------------------------------


class _EnumConverter:
    """From a member's value, else from its name."""

    def __init__(self, cls: type[Enum]) -> None:
        self.cls = cls

    def __call__(self, value: Any) -> Any:
        if isinstance(value, self.cls):
            return value
        if type(value) is Unresolved:
            value = value.take()
            if type(value) is str:
                return self._by_name(value)
        try:
            return self.cls(value)
        except (ValueError, TypeError, KeyError):
            return self._by_name(value)

    def _by_name(self, name: Any) -> Any:
        member = self.cls.__members__.get(name) if type(name) is str else None
        if member is not None:
            return member
        known = "a combination" if issubclass(self.cls, Flag) else "one"
        names = ", ".join(list(self.cls.__members__)[:20])
        raise Misfit(f"is {_show(name)}, not {known} of {self.cls.__qualname__}: {names}")


class _DataclassConverter:
    """From a dict of its fields. Strict about their names: such a dict is written by hand."""

    def __init__(self, cls: Any, scope: Scope) -> None:
        self.cls = cls
        self._scope = scope
        self._converters: dict[str, Converter] | None = None

    def __call__(self, value: Any) -> Any:
        if isinstance(value, self.cls):
            return value
        unresolved = type(value) is Unresolved
        values = _fields_given(self.cls, value)
        if not unresolved:
            _refuse_unknown(self.cls, values, records.constructor_names(self.cls))
        return _construct(
            records.build_dataclass, self.cls, _convert_fields(values, self._fields())
        )

    def _fields(self) -> dict[str, Converter]:
        # On first use, not at once: a dataclass may hold its own kind.
        if self._converters is None:
            hints = _resolve(self.cls, {field.name: field.type for field in fields(self.cls)})
            self._converters = _converters(hints, self._scope)
        return self._converters


class _NamedTupleConverter:
    """From a dict of its fields, or a list of as many values."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls
        self._converters: dict[str, Converter] | None = None

    def __call__(self, value: Any) -> Any:
        if isinstance(value, self.cls):
            return value
        if type(value) in (list, tuple) and len(value) <= len(self.cls._fields):
            value = dict(zip(self.cls._fields, value, strict=False))
        unresolved = type(value) is Unresolved
        values = _fields_given(self.cls, value)
        if not unresolved:
            _refuse_unknown(self.cls, values, self.cls._fields)
        if self._converters is None:
            self._converters = _converters(_resolve(self.cls, self.cls.__annotations__), {})
        return _construct(
            records.build_namedtuple, self.cls, _convert_fields(values, self._converters)
        )


class _ModelConverter:
    """From whatever the model itself accepts."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls

    def __call__(self, value: Any) -> Any:
        if isinstance(value, self.cls):
            return value
        if type(value) is Unresolved:
            return _construct(records.validate_model, self.cls, _plain(value))
        return _construct(lambda cls, given: cls.model_validate(given), self.cls, value)


def _construct(build: Callable[[Any, Any], Any], cls: Any, values: Any) -> Any:
    try:
        return build(cls, values)
    except RecursionError:
        raise
    except DecodeError as error:
        raise Misfit(f"can't become a {cls.__qualname__}: {error}") from error
    except Exception as error:
        # The user's own constructor or validator: whatever it raises means the same.
        reason = " ".join(str(error).split())[:500]
        raise Misfit(f"can't become a {cls.__qualname__}: {reason}") from error


def _converters(hints: Mapping[str, Any], scope: Scope) -> dict[str, Converter]:
    found = ((name, _converter(hint, scope)) for name, hint in hints.items())
    return {name: converter for name, converter in found if converter is not None}


def _fields_given(cls: type, value: Any) -> dict[str, Any]:
    if type(value) is Unresolved:
        value = value.take()
    if type(value) is not dict:
        raise Misfit(f"is {_show(value)}, not a {cls.__qualname__} or a dict of its fields")
    return value


def _refuse_unknown(cls: type, values: dict[Any, Any], known: Iterable[str]) -> None:
    unknown = [name for name in values if name not in known]
    if unknown:
        raise Misfit(
            f"has {_show(unknown[0])}, which is no field of {cls.__qualname__}; it has "
            + ", ".join(known)
        )


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
    return converted


def _typed_dict(cls: Any) -> Converter | None:
    converters = _converters(_resolve(cls, cls.__annotations__), {})
    if not converters:
        return None

    def convert(value: Any) -> Any:
        return _convert_fields(_fields_given(cls, value), converters)

    return convert


def _plain(value: Any) -> Any:
    """With records of unknown classes as dicts, for a pydantic model to make what it wants of."""
    if type(value) is Unresolved:
        return _plain(value.take())
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_plain(item) for item in value)
    return value


# --- collections and unions -------------------------------------------------------------------


def _or_none(converter: Converter) -> Converter:
    return lambda value: None if value is None else converter(value)


def _collection(origin: Any, arguments: tuple[Any, ...], scope: Scope) -> Converter | None:
    converter = _converter(arguments[0], scope) if arguments else None
    if converter is None:
        return None
    item = converter
    accepted = (list, tuple, set, frozenset)

    def convert(value: Any) -> Any:
        if type(value) not in accepted:
            raise Misfit(f"is {_show(value)}, not a list")
        items = _items(value, item)
        if origin in _SETS:
            return (
                frozenset(items) if origin is frozenset or type(value) is frozenset else set(items)
            )
        return items if origin is list or type(value) is not tuple else tuple(items)

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


def _tuple(arguments: tuple[Any, ...], scope: Scope) -> Converter | None:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _homogeneous_tuple(_converter(arguments[0], scope))
    converters = [_converter(argument, scope) for argument in arguments]
    if not any(converters):
        return None

    def convert(value: Any) -> Any:
        if type(value) not in (list, tuple) or len(value) != len(converters):
            raise Misfit(f"is {_show(value)}, not a tuple of {len(converters)}")
        pairs = zip(value, converters, strict=True)
        return tuple(_items(pairs, lambda pair: pair[1](pair[0]) if pair[1] else pair[0]))

    return convert


def _homogeneous_tuple(item: Converter | None) -> Converter | None:
    if item is None:
        return None

    def convert(value: Any) -> Any:
        if type(value) not in (list, tuple):
            raise Misfit(f"is {_show(value)}, not a tuple")
        return tuple(_items(value, item))

    return convert


def _mapping(arguments: tuple[Any, ...], scope: Scope) -> Converter | None:
    if len(arguments) != 2:
        return None
    for_key, for_value = (_converter(argument, scope) for argument in arguments)
    if for_key is None and for_value is None:
        return None

    def convert(value: Any) -> Any:
        if type(value) is not dict:
            raise Misfit(f"is {_show(value)}, not a dict")
        converted, key = {}, None
        try:
            for key, item in value.items():
                new_key = for_key(key) if for_key else key
                converted[new_key] = for_value(item) if for_value else item
        except Misfit as misfit:
            misfit.path.append(step(key))
            raise
        return converted

    return convert


def _union(members: tuple[Any, ...], scope: Scope) -> Converter | None:
    stripped = [_strip(member, scope) for member in members]
    converters = [c for c in (_converter(member, scope) for member in stripped) if c]
    if not converters:
        return None
    plain = [member for member in stripped if _converter(member, scope) is None]

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
        kinds = " and ".join(type(fit).__qualname__ for fit in fits)
        raise Misfit(f"fits {kinds} alike; pass an instance of the one that is meant")
    if len(misfits) == 1:
        raise misfits[0]
    raise Misfit("fits no member of the union: " + "; or ".join(map(str, misfits)))


def _fits(value: Any, member: Any) -> bool:
    """Whether ``value`` may pass as ``member``, an annotation that nothing is converted to."""
    origin = get_origin(member) or member
    if origin is typing.Literal:
        return value in get_args(member)
    if not isinstance(origin, type):
        return True
    if origin is float:
        return type(value) in (int, float)
    try:
        return isinstance(value, origin)
    except TypeError:
        return True  # a Protocol that can't be checked


def _show(value: Any) -> str:
    """A value in an error text: its type, and itself where that is short and safe."""
    if type(value) is str:
        return repr(value if len(value) <= 80 else value[:79] + "…")
    if value is None or type(value) in (bool, float):
        return repr(value)
    if type(value) is int and value.bit_length() <= 128:
        return repr(value)
    return f"a {type(value).__qualname__}"
