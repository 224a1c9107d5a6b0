"""``import taskharbor`` stays light: what is not needed to make a task is not loaded."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

HEAVY = (
    "asyncio",
    "click",
    "concurrent.futures",
    "difflib",
    "email",
    "hashlib",
    "http",
    "importlib.metadata",
    "logging",
    "multiprocessing",
    "pathlib",
    "psycopg",
    "pydantic",
    "random",
    "redis",
    "socket",
    "sqlite3",
    "ssl",
    "structlog",
    "subprocess",
    "tempfile",
    "urllib",
    "uuid",
    "zoneinfo",
)
OURS = ("cli", "conformance", "contrib", "drivers", "maintenance", "testing", "worker")


def loaded_by(code: str) -> set[str]:
    """The modules that ``code`` loads, and the packages that hold them."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_taskharbor_loads_no_driver_and_nothing_heavy() -> None:
    loaded = loaded_by("import taskharbor")
    assert "taskharbor.app" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert loaded.isdisjoint(f"taskharbor.{part}" for part in OURS)


def test_making_a_task_and_calling_it_loads_nothing_more() -> None:
    make = "@app.task\ndef add(x: int) -> int: return x\nassert add(2) == 2; add.s(2)"
    loaded = loaded_by(f"import taskharbor; app = taskharbor.TaskHarbor()\n{make}")
    assert loaded.isdisjoint(HEAVY)
    assert loaded.isdisjoint(f"taskharbor.{part}" for part in OURS)


def test_a_driver_is_loaded_when_its_url_is_used() -> None:
    use = "app = taskharbor.TaskHarbor('memory://'); app.driver"
    loaded = loaded_by(f"import taskharbor; {use}")
    assert "taskharbor.drivers.memory" in loaded
    assert loaded.isdisjoint({"taskharbor.drivers.sqlite", "click", "structlog", "asyncio"})
