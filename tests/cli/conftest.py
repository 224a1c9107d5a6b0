"""A store of its own for each test, and the command line on it, in this process."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from taskharbor.cli.root import cli
from taskharbor.drivers.base import InspectableDriver, Want
from taskharbor.drivers.registry import connect
from taskharbor.lease import Reservation
from taskharbor.settlement import Settlement

Run = Callable[..., Result]


class Shape(Enum):
    """A class that only an app would know."""

    ROUND = "round"


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The store that commands find in their environment."""
    directory = Path(tempfile.mkdtemp(prefix="th-"))  # short, as a socket's path must be
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.setenv("TASKHARBOR_URL", "memory://cli?linger=0.3")
    yield "memory://cli?linger=0.3"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def driver(url: str) -> Iterator[InspectableDriver]:
    """The same store, to see and to do what commands can't."""
    driver = connect(url)
    yield driver
    driver.close()


@pytest.fixture
def run(driver: InspectableDriver) -> Run:
    """``run("list", "--json")``: the command's result; fails the test unless it ends with
    ``code``."""

    def run(*words: str, code: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(cli, words, input=stdin)
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        return result

    return run


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """The same with ``--json``: what was printed, decoded."""

    def run_json(*words: str, code: int = 0) -> Any:
        return json.loads(run(*words, "--json", code=code).stdout)

    return run_json


def reserve(driver: InspectableDriver, queue: str = "default") -> Reservation:
    return driver.exchange("worker-1", (), Want((queue,), 1, 30.0)).reserved[0]


def settle(driver: InspectableDriver, settlements: Sequence[Settlement]) -> None:
    answers = driver.exchange("worker-1", settlements).settled
    assert [answer.verdict for answer in answers] == ["applied"] * len(settlements)
