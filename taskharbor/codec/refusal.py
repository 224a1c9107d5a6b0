"""Why a value can't travel, where it sits, and what to pass instead."""

from __future__ import annotations

import sys
from datetime import date, datetime, time, timedelta
from types import FunctionType, GeneratorType, MethodType, ModuleType

# A datetime is a date, so it stands before it.
_PLAIN: tuple[type, ...] = (
    str, int, float, complex, bytes, bytearray, tuple, list, dict, set, frozenset,
    datetime, date, time, timedelta,
)  # fmt: skip
_REMEDIES: tuple[tuple[tuple[type, ...], str], ...] = (
    ((memoryview,), "convert it with bytes(value)"),
    ((BaseException,), "pass str(error), or raise it to fail the job"),
    ((GeneratorType, map, filter, zip, range), "make a list of it: list(value)"),
    (
        (FunctionType, MethodType, ModuleType, type),
        "code can't travel: pass its name and look it up in the task",
    ),
)
_LONGEST_PATH = 300


class Refused(Exception):
    """Raised at the offending value; each container on the way out adds its step to ``path``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def describe(self, what: str, root: str) -> str:
        """``root`` stands for the outermost value: ``result`` in ``result['rows'][3]``."""
        place = root + "".join(reversed(self.path))
        if len(place) > _LONGEST_PATH:
            place = f"{place[: _LONGEST_PATH // 2]} … {place[-_LONGEST_PATH // 2 :]}"
        return f"can't encode {what}: {place or 'it'} {self.reason}"


def step(key: object) -> str:
    """``[key]`` as Python would write it, for keys whose repr is short and safe."""
    if type(key) is str:
        return f"[{key[:60]!r}]"
    if type(key) is bytes:
        return f"[{key[:60]!r}]"
    if type(key) in (int, float, bool, type(None)) and not _is_huge(key):
        return f"[{key!r}]"
    return f"[<{type(key).__qualname__}>]"


def _is_huge(key: object) -> bool:
    # repr() of a huge int raises (sys.set_int_max_str_digits).
    return isinstance(key, int) and key.bit_length() > 128


def unsupported(value: object) -> Refused:
    """The refusal of a value whose type has no wire form."""
    return Refused(f"is a {type(value)!r}; {_remedy(type(value))}")


def _remedy(kind: type) -> str:
    if kind.__module__.partition(".")[0] == "numpy":
        return "convert it with .item() or .tolist()"
    for base in _PLAIN:
        if issubclass(kind, base):
            return f"it would come back as a plain {base.__name__}, so make it one on purpose"
    for kinds, remedy in _REMEDIES:
        if issubclass(kind, kinds):
            return remedy
    if _is_orm_model(kind):
        return "pass its primary key and load it in the task"
    return (
        "pass plain data, a dataclass or an identifier, and open what can't travel inside the task"
    )


def _is_orm_model(kind: type) -> bool:
    django = sys.modules.get("django.db.models")
    return hasattr(kind, "__mapper__") or (django is not None and issubclass(kind, django.Model))
