"""``taskharbor worker``: the way in."""

from __future__ import annotations

from random import Random

from taskharbor.worker.config import ExitCode, WorkerConfig
from taskharbor.worker.lifeline import name_process
from taskharbor.worker.logs import configure_logging, get_logger
from taskharbor.worker.supervisor import Supervisor


def run_worker(config: WorkerConfig) -> int:
    """Run a worker in this process, which becomes its supervisor, until a signal ends it.

    The exit code is one of the first four of ``ExitCode``. To be called from the main thread, with
    no other threads: it takes over the signals. What it starts ends before it returns.
    """
    configure_logging(config.log_level, config.log_format, role="supervisor")
    name_process("th-supervisor")
    try:
        return int(Supervisor(config, rng=Random()).run())
    except Exception:  # noqa: BLE001 - the last frame: what goes wrong here is our bug
        get_logger("taskharbor.worker").exception("a bug in TaskHarbor ended the supervisor")
        return int(ExitCode.INTERNAL)
