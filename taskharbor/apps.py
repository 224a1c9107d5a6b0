"""All apps of this process: found again by name, and made anew in a forked child."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from taskharbor.errors import ConfigurationError

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor

_apps: weakref.WeakSet[TaskHarbor] = weakref.WeakSet()
_abandoned: list[object] = []


def register(app: TaskHarbor) -> None:
    """``find`` finds it from now on, and a fork calls its ``forked()``, as long as it lives."""
    _apps.add(app)


def find(name: str) -> TaskHarbor:
    """The app of that name in this process, or any of several on the same store.

    Raises ConfigurationError.
    """
    found = [app for app in _apps if app.name == name]
    stores = {app.url for app in found}
    if len(stores) == 1:
        return found[0]
    raise ConfigurationError(
        f"this process has {len(stores)} stores under the app name {name!r}, so what was pickled "
        "can't find its own; import the module that makes the app first, and give apps names: "
        "TaskHarbor(name=...)"
    )


def abandon(connection: object) -> None:
    """Keep a parent's connection for ever: closing it, were it only by the garbage collector,
    would speak on the parent's connection or touch the parent's database files."""
    _abandoned.append(connection)


def _after_fork_in_child() -> None:
    for app in _apps:
        app.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
