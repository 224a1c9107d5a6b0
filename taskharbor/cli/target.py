"""What a command is aimed at: the app, if one is named, and its store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from taskharbor import defaults
from taskharbor.errors import ConfigurationError, TaskHarborError

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.drivers.base import InspectableDriver


def import_app(path: str) -> TaskHarbor:
    """The app that ``-A`` names. Raises ConfigurationError, with the traceback if it is the app's
    own code that fails."""
    from taskharbor.loader import load_app

    try:
        return load_app(path)
    except TaskHarborError:
        raise
    except Exception as error:
        import traceback

        raise ConfigurationError(
            f"importing {path} failed; fix this first:\n{traceback.format_exc().rstrip()}"
        ) from error


def store_url(url: str | None, app: TaskHarbor | None) -> str:
    """The URL of the store: the flag's, else the app's, else the environment's, else the
    default."""
    if url:
        return url
    return app.url if app else os.environ.get("TASKHARBOR_URL") or defaults.URL


@contextmanager
def open_app(url: str | None, app_path: str | None) -> Iterator[TaskHarbor]:
    """The app, or one without tasks; on the store that ``--url`` names, if it does."""
    from taskharbor.app import TaskHarbor

    app = import_app(app_path) if app_path else TaskHarbor(url)
    if url:
        app.url = url
    try:
        yield app
    finally:
        app.close()


@contextmanager
def open_store(url: str | None, app_path: str | None) -> Iterator[InspectableDriver]:
    """The store, connected. With an app, its classes are imported: values of them can be shown.

    Raises ConfigurationError and StoreErrors.
    """
    from taskharbor.drivers.registry import connect

    app = import_app(app_path) if app_path else None
    driver = connect(store_url(url, app))
    try:
        yield driver
    finally:
        driver.close()
