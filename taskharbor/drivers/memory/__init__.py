"""Jobs in memory: ``memory://`` in this process, ``memory://name`` in a server shared by the
processes of one user.

``memory://``
    A store of its own for every driver object, gone with it. For tests and for trying things.

``memory://name?linger=300&timeout=10``
    One store per name, user and machine, kept by a server process that the first client starts.
    The server ends ``linger`` seconds after its last client has gone, and its jobs with it.
    ``timeout`` is how many seconds a request may take before the store counts as unavailable.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from taskharbor.clock import Clock
from taskharbor.drivers.base import Capabilities
from taskharbor.drivers.memory.driver import LocalChannel, MemoryDriver
from taskharbor.errors import ConfigurationError

__all__ = ["MemoryDriver", "connect"]


def connect(url: str, *, clock: Clock | None = None) -> MemoryDriver:
    """The driver for ``memory://`` or ``memory://name``; starts the server when there is none.

    Raises ConfigurationError for a URL of another form, StoreUnavailable when no server can be
    started.
    """
    parts = urlsplit(url)
    if parts.scheme != "memory" or parts.path not in ("", "/") or parts.fragment:
        raise ConfigurationError(f"{url!r} is not a memory store; write memory:// or memory://name")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.netloc:
        from taskharbor.drivers.memory.client import connect_to_server

        return connect_to_server(parts.netloc, query, clock)
    if query:
        raise ConfigurationError(
            f"memory:// in this process takes no settings, but the URL has {', '.join(query)}; "
            "settings are for memory://name"
        )
    return MemoryDriver("memory://", LocalChannel(), Capabilities(flows=True), clock)
