"""A file for every test, audited when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskharbor.drivers.sqlite import SQLiteDriver, connect
from taskharbor.message import Message
from tests.drivers.sqlite.audit import audit

Connect = Callable[..., SQLiteDriver]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where the database will be."""
    path = tmp_path / "jobs.db"
    yield path
    if path.exists():
        audit(path)


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def driver(url: str) -> Iterator[SQLiteDriver]:
    driver = connect(url)
    yield driver
    driver.close()


def job(job_id: str = "a", **fields: Any) -> Message:
    return Message(id=job_id, task="demo.task", body=b"body", **fields)
