"""From a URL to a driver.

Our own schemes are known here by name and imported when first used; others register an entry
point in the group ``taskharbor.drivers`` whose name is the scheme and whose value is a callable
``connect(url, *, clock=None) -> Driver``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast
from urllib.parse import urlsplit

from taskharbor.clock import Clock
from taskharbor.drivers.base import InspectableDriver
from taskharbor.errors import ConfigurationError, UnknownDriver

Connect = Callable[..., InspectableDriver]

_OURS = {
    "memory": "taskharbor.drivers.memory",
    "sqlite": "taskharbor.drivers.sqlite",
    "redis": "taskharbor.drivers.redis",
    "rediss": "taskharbor.drivers.redis",
    "redis+sentinel": "taskharbor.drivers.redis",
    "redis+cluster": "taskharbor.drivers.redis",
    "unix": "taskharbor.drivers.redis",
    "postgres": "taskharbor.drivers.postgres",
    "postgresql": "taskharbor.drivers.postgres",
}
_EXTRA = {"taskharbor.drivers.redis": "redis", "taskharbor.drivers.postgres": "postgres"}
_GROUP = "taskharbor.drivers"


def connect(url: str, *, clock: Clock | None = None) -> InspectableDriver:
    """The driver for ``url``. ``clock`` replaces the store's own, for tests.

    Raises UnknownDriver for a scheme nobody registered, ConfigurationError for a URL the driver
    can't use, and the driver's StoreErrors when it can't reach or open the store.
    """
    return find(url)(url, clock=clock)


def find(url: str) -> Connect:
    """The ``connect`` of the driver for ``url``, its module imported. Raises UnknownDriver and
    ConfigurationError like ``connect``; opens nothing."""
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError:
        # (Whose text, and with it the traceback, may show a part of the password.)
        raise ConfigurationError(
            "the store URL can't be read (it is not shown, for it may have a password): brackets "
            "are for an IPv6 address, as in redis://[::1]:6379; in a password write [ as %5B, ] as "
            "%5D, and letters that are not ASCII percent-encoded"
        ) from None
    module = _OURS.get(scheme)
    if module is not None:
        return _import_ours(module)
    for point in entry_points(group=_GROUP, name=scheme):
        return cast(Connect, point.load())
    known = sorted({*_OURS, *(point.name for point in entry_points(group=_GROUP))})
    raise UnknownDriver(
        f"no driver for the URL scheme {scheme!r}; known are {', '.join(known)}. "
        "Example: sqlite:///taskharbor.db"
        if scheme
        else "the store URL has no scheme; write for example sqlite:///taskharbor.db"
    )


def _import_ours(module: str) -> Connect:
    try:
        return cast(Connect, import_module(module).connect)
    except ModuleNotFoundError as error:
        extra = _EXTRA.get(module)
        if extra is None or (error.name or "").startswith("taskharbor"):
            raise
        raise ConfigurationError(
            f"this URL needs the package {error.name!r}; install it with: "
            f"pip install 'taskharbor[{extra}]'"
        ) from error
