"""Arguments made into what their parameters are annotated with.

A record that was passed as itself arrives as itself and is left alone. This is for callers that
have only plain data (the command line, HTTP, another language: a dict for a dataclass, a string for
an Enum member) and for records whose class is no longer found under the name it was sent with.

It is no type checker: only annotations that name a dataclass, NamedTuple, TypedDict, pydantic model
or Enum, alone or inside Optional, unions and collections, are looked at; an ``int`` parameter takes
whatever comes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from inspect import Parameter
from typing import Any

from taskharbor.codec.annotations import converter_for, resolve
from taskharbor.codec.convert import Converter, Misfit
from taskharbor.codec.reader import Call, Rebuild
from taskharbor.errors import DecodeError


def rebuilder(fn: Callable[..., Any], *, skip: int = 0) -> Rebuild | None:
    """How to convert the arguments of a call of ``fn``; None when there is nothing to convert.

    ``skip``: leading parameters that are no part of the call (``self`` of a bound task). The
    function returned converts in place, and raises DecodeError, naming the parameter, for a value
    that does not fit. Annotations that can't be resolved at the first call either (imported under
    TYPE_CHECKING only) are passed over.
    """
    try:
        parameters = list(inspect.signature(fn).parameters.values())[skip:]
    except ValueError:
        return None  # a function written in C that tells nothing of its parameters
    names = {p.name for p in parameters if p.annotation is not Parameter.empty}
    hints = _hints_of(fn, parameters)
    if names <= hints.keys():
        return _compile(parameters, hints)
    # A class further down in the module, perhaps: known when the first call comes.
    return _Later(lambda: _compile(parameters, _hints_of(fn, parameters)))


class _Later:
    """A rebuilder that is compiled when the first call comes."""

    def __init__(self, compile_now: Callable[[], Rebuild | None]) -> None:
        self._compile = compile_now
        self._rebuild: Rebuild | None = None

    def __call__(self, args: list[Any], kwargs: dict[str, Any]) -> Call:
        if self._rebuild is None:
            self._rebuild = self._compile() or _pass_through
        return self._rebuild(args, kwargs)


def _pass_through(args: list[Any], kwargs: dict[str, Any]) -> Call:
    return args, kwargs


def _compile(parameters: list[Parameter], hints: dict[str, Any]) -> Rebuild | None:
    converters: dict[str, Converter] = {}
    for parameter in parameters:
        converter = converter_for(hints.get(parameter.name))
        if converter is not None:
            # A default of None makes None welcome, whatever the annotation says.
            welcome = parameter.default is None
            converters[parameter.name] = _or_none(converter) if welcome else converter
    return _Rebuilder(parameters, converters) if converters else None


def _hints_of(fn: Any, parameters: list[Parameter]) -> dict[str, Any]:
    return resolve(_function_of(fn), {p.name: p.annotation for p in parameters})


def _function_of(fn: Any) -> Any:
    """The function whose annotations those of ``fn`` are."""
    while isinstance(fn, partial):
        fn = fn.func
    fn = inspect.unwrap(fn)
    return fn if inspect.isroutine(fn) or isinstance(fn, type) else type(fn).__call__


def _or_none(converter: Converter) -> Converter:
    return lambda value: None if value is None else converter(value)


class _Rebuilder:
    """Converts the arguments of one call; see :func:`rebuilder`."""

    def __init__(self, parameters: list[Parameter], converters: dict[str, Converter]) -> None:
        by_kind: dict[Any, list[str]] = {}
        for parameter in parameters:
            by_kind.setdefault(parameter.kind, []).append(parameter.name)
        keywords = by_kind.get(Parameter.POSITIONAL_OR_KEYWORD, [])
        self._positional = by_kind.get(Parameter.POSITIONAL_ONLY, []) + keywords
        self._keywords = {*keywords, *by_kind.get(Parameter.KEYWORD_ONLY, [])}
        (self._rest,) = by_kind.get(Parameter.VAR_POSITIONAL, [""])
        (self._extra,) = by_kind.get(Parameter.VAR_KEYWORD, [""])
        self._converters = converters

    def __call__(self, args: list[Any], kwargs: dict[str, Any]) -> Call:
        for index, value in enumerate(args):
            named = index < len(self._positional)
            name = self._positional[index] if named else self._rest
            converter = self._converters.get(name)
            if converter is not None:
                args[index] = _convert(converter, value, name)
        for name, value in kwargs.items():
            converter = self._converters.get(name if name in self._keywords else self._extra)
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
