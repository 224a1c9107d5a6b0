"""The names under which a user's classes travel.

On the wire stands ``module:qualname``. It is looked up only among modules that are already
imported, without calling anything of them: bytes can neither import code nor name a function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any

from taskharbor.codec.refusal import Refused
from taskharbor.errors import DecodeError

_MAIN = ("__main__", "__mp_main__")


class UnknownClass(DecodeError):
    """No imported module has the class that the bytes name."""


@lru_cache(maxsize=1024)
def class_name(cls: type) -> str:
    """``module:qualname``, under which :func:`find_class` finds ``cls`` again.

    Raises Refused for a class that no other process could find.
    """
    if "<locals>" in cls.__qualname__:
        raise Refused(
            f"is a {cls.__qualname__}, a class made inside a function, which a worker can't find; "
            "move the class to the top of its module"
        )
    module = main_module_name() if cls.__module__ in _MAIN else cls.__module__
    name = f"{module}:{cls.__qualname__}"
    if not any(found is cls for found in _classes_called(name)):
        raise Refused(
            f"is a {cls!r}, but {name} is something else; give the class its own name at the top "
            "of its module"
        )
    return name


def find_class(name: str, kind: str, is_kind: Callable[[type], bool]) -> type:
    """The class called ``name`` if an imported module has it and it is of the kind; else raises."""
    cls = next(_classes_called(name), None)
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


def _classes_called(name: str) -> Iterator[type]:
    """Two at most: a script can be imported beside itself, as ``__main__`` and by its name."""
    module_name, _, qualname = name.partition(":")
    if module_name == main_module_name():
        yield from _class_in(sys.modules.get("__main__"), qualname)
    yield from _class_in(sys.modules.get(module_name), qualname)


def _class_in(module: object, qualname: str) -> Iterator[type]:
    if not isinstance(module, ModuleType):
        return
    # Namespaces are read directly: getattr() would run a module's __getattr__, a lazy import.
    namespace: Any = ModuleType.__getattribute__(module, "__dict__")
    found: object = None
    for part in qualname.split("."):
        found = namespace.get(part)
        if not isinstance(found, type):
            return
        namespace = type.__dict__["__dict__"].__get__(found)
    if isinstance(found, type):
        yield found


def main_module_name() -> str:
    """What a worker that imports the script of this process would call it.

    ``python shop.py`` runs as ``__main__``; the worker knows the same file as ``shop``.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    path = getattr(main, "__file__", None)
    if not isinstance(path, str):
        return "__main__"
    return path.replace("\\", "/").rpartition("/")[2].removesuffix(".py")
