"""From ``-A package.module:attribute`` to the app. Shared by the CLI and the worker."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from taskharbor.app import TaskHarbor
from taskharbor.errors import ConfigurationError


def load_app(path: str) -> TaskHarbor:
    """Import the module and find its app.

    Without an attribute, the module's only ``TaskHarbor`` is taken, or the one in its variable
    ``app``. The current directory is importable, as it is for ``python -m``. Raises
    ConfigurationError when there is no such module or app; errors raised by the module itself pass
    through unchanged.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    name, _, attribute = path.partition(":")
    module = _import(name)
    return _named_app(module, attribute) if attribute else _only_app(module)


def _import(name: str) -> ModuleType:
    if name.endswith(".py") or "/" in name or not name.strip("."):
        module = name.removesuffix(".py").replace("/", ".").strip(".") or "package.module"
        raise ConfigurationError(
            f"the app {name!r} is named like a file; name the module that holds it: -A {module}"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only if the module itself (or a package on the way) is what is missing.
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise
        raise ConfigurationError(
            f"there is no module {error.name!r} to import the app {name!r} from; run from the "
            "directory that holds it, or set PYTHONPATH"
        ) from error


def _named_app(module: ModuleType, attribute: str) -> TaskHarbor:
    found: object = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, TaskHarbor):
        raise ConfigurationError(
            f"{module.__name__}:{attribute} is {found!r}, not a TaskHarbor app; name the variable "
            "that holds it"
        )
    return found


def _only_app(module: ModuleType) -> TaskHarbor:
    names = [name for name, value in vars(module).items() if isinstance(value, TaskHarbor)]
    apps = {id(vars(module)[name]): vars(module)[name] for name in names}
    if len(apps) == 1:
        app: TaskHarbor = next(iter(apps.values()))
        return app
    if not apps:
        raise ConfigurationError(
            f"the module {module.__name__} has no TaskHarbor app; create one with "
            "app = TaskHarbor(), or name the module that has it"
        )
    if "app" in names:
        return _named_app(module, "app")
    raise ConfigurationError(
        f"the module {module.__name__} has {len(apps)} apps ({', '.join(sorted(names))}); name "
        f"one: -A {module.__name__}:{min(names)}"
    )
