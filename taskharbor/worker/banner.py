"""What is being run, and against what: the first thing a worker says."""

from __future__ import annotations

import os
import sys

from taskharbor import __version__
from taskharbor.worker.config import WorkerConfig
from taskharbor.worker.logs import get_logger, writes_for_people

_SECRET_WORDS = ("password", "passwd", "secret", "token", "key")


def facts(config: WorkerConfig, *, url: str, tasks: int) -> dict[str, str]:
    """Label → text, in the order to be shown. ``url`` may have secrets; the text has none."""
    queues = ", ".join(
        name if weight == 1 else f"{name} (weight {weight})" for name, weight in config.queues
    )
    slots = "" if config.pool == "process" else f" with {config.slots} slots each"
    return {
        "version": __version__,
        "app": f"{config.app_path} ({tasks} tasks)",
        "store": without_secrets(url),
        "queues": queues,
        "concurrency": f"{config.concurrency} children, pool {config.pool}{slots}",
        "lease": f"{config.lease_seconds:g} s, heartbeat {config.heartbeat_seconds:g} s, "
        f"grace {config.grace_seconds:g} s",
        "pid": str(os.getpid()),
    }


def as_text(lines: dict[str, str]) -> str:
    """The banner for a terminal."""
    width = max(map(len, lines))
    body = "\n".join(f"  {label:<{width}}  {text}" for label, text in lines.items())
    return f"\n  TaskHarbor worker\n\n{body}\n\n  Stop with Ctrl-C.\n"


def announce(config: WorkerConfig, *, url: str, tasks: int) -> None:
    """Say it on standard error: as a text on a terminal, else as one log line."""
    lines = facts(config, url=url, tasks=tasks)
    if writes_for_people(config.log_format):
        sys.stderr.write(as_text(lines))
        sys.stderr.flush()
    else:
        get_logger("taskharbor.worker").info("worker started", **lines)


def without_secrets(url: str) -> str:
    """``url`` with its password, and query values that look like one, replaced by ``***``."""
    scheme, separator, rest = url.partition("://")
    place, query_mark, query = rest.partition("?")
    user, at, host = place.rpartition("@")
    if at and ":" in user:
        place = f"{user.split(':', 1)[0]}:***@{host}"
    shown = "&".join(_without_secret(pair) for pair in query.split("&"))
    return f"{scheme}{separator}{place}{query_mark}{shown}"


def _without_secret(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    hide = equals and any(word in name.lower() for word in _SECRET_WORDS)
    return f"{name}=***" if hide else pair
