"""The names under which a user's classes travel.

On the wire stands ``module:qualname``. It is looked up only among modules that are already
imported, without calling anything of them: bytes can neither import code nor name a function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from taskharbor.codec.refusal import Refused
from taskharbor.errors import DecodeError

_MAIN = ("__main__", "__mp_main__")


class UnknownClass(DecodeError):
    """No imported module has the class that the bytes name."""


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
