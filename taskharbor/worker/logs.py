"""Logs of a worker's processes: for people on a terminal, JSON lines otherwise.

The standard library's ``logging`` goes the same way, so that a task's own log lines come out in
the same form. Everything goes to standard error.
"""

from __future__ import annotations

import logging
import logging.config
import sys
from typing import Any, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from taskharbor.worker.config import LogFormat, LogLevel

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)


def configure_logging(level: LogLevel, form: LogFormat, *, role: str) -> None:
    """Set up this process. ``role`` (``supervisor``, ``child-3``, …) stands in every line."""
    number = logging.getLevelNamesMapping()[level.upper()]
    renderers = _human_renderers() if writes_for_people(form) else _json_renderers()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    bind_role(role)


def bind_role(role: str) -> None:
    """Name this process in its log lines; a forked child says who it is now."""
    structlog.contextvars.bind_contextvars(process=role)


def writes_for_people(form: LogFormat) -> bool:
    """Whether lines are for people to read, rather than for programs."""
    return sys.stderr.isatty() if form == "auto" else form == "human"


def get_logger(name: str) -> FilteringBoundLogger:
    return cast(FilteringBoundLogger, structlog.get_logger(name))


def _human_renderers() -> list[Any]:
    return [structlog.dev.ConsoleRenderer(pad_event_to=0)]


def _json_renderers() -> list[Any]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
