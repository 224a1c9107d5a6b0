"""A native copy of what a simulation spends its time in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import tests.simulation

ROOT = Path(tests.simulation.__file__).parents[2]
MODULES = (
    *("taskharbor/decision.py", "taskharbor/lease.py", "taskharbor/settlement.py"),
    *("taskharbor/states.py", "taskharbor/flow/progress.py"),
    *(
        f"taskharbor/worker/{name}.py"
        for name in ("heartbeat", "held", "planner", "prefetch", "recovery", "settler", "shutdown")
    ),
    *(
        f"taskharbor/drivers/memory/{name}.py"
        for name in (
            *("flow_parts", "flows", "keys", "member", "operators", "record", "shelves"),
            *("store", "timeline", "tombstones", "waiters"),
        )
    ),
    *(
        f"tests/simulation/{name}.py"
        for name in ("child", "history", "jobs", "maintenance", "network", "scheduler", "store")
    ),
)

Run = Callable[..., str]


def build(directory: Path) -> Run:
    """Copies all sources into ``directory`` and compiles MODULES there. Returns a function that
    runs the simulation's command line there and returns what it printed (``capture``)."""
    for package in ("taskharbor", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / package, directory / package, ignore=ignored)
    mypyc = [sys.executable, "-m", "mypyc", *MODULES]
    made = subprocess.run(mypyc, cwd=directory, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise RuntimeError(f"mypyc failed:\n{made.stdout}\n{made.stderr}")

    def run(*arguments: str, capture: bool) -> str:
        command = [sys.executable, "-P", "-m", "tests.simulation", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(directory)}
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE if capture else None,
            text=True,
            check=True,
        )
        return done.stdout or ""

    return run
