"""Whole flows on the stores that outlive a process: what the user wrote is what comes out."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from taskharbor import TaskFailed, TaskHarbor, chain, chord, group, testing
from taskharbor.canvas import Canvas
from taskharbor.drivers.base import Migratable
from taskharbor.flow.plan import FlowState
from taskharbor.ids import new_id

app = TaskHarbor("memory://", name="stores", max_attempts=1)


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def same(value: Any) -> Any:
    return value


@app.task
def open_file(path: str) -> str:
    return Path(path).read_text()


@app.task
def spread(count: int) -> Canvas[int]:
    return group(add.s(i, i) for i in range(count)) | total.s()


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    url = f"sqlite:///{tmp_path}/jobs.db"
    if request.param != "sqlite":
        server = request.getfixturevalue(f"{request.param}_url")
        url = f"{server}?namespace=flows_{new_id()}"
    app.close()
    app.url = url
    if isinstance(app.driver, Migratable):
        app.driver.migrate()
    yield url
    app.close()


@pytest.mark.usefixtures("url")
def test_canvases_come_to_what_they_say() -> None:
    canvases: list[tuple[Any, Any]] = [
        (chain(add.s(2, 2), add.s(4), add.s(8)), 16),
        (group(add.s(1), group(add.s(2), add.s(3))), [1, 2, 3]),
        (chord([chord([add.s(1), add.s(2)], total.s()), add.s(3)], total.s()), 6),
        (group(add.s(1), add.s(2)) | group(total.s(), same.s()) | same.s(), [3, [1, 2]]),
        (chain(add.s(1, 1), group(), same.s()), []),
        (chord([spread.s(2), spread.s(3)], total.s()), 8),
        (group(add.s(i) for i in range(1500)) | total.s(), 1500 * 1499 // 2),
    ]
    results = [canvas.delay() for canvas, _ in canvases]
    testing.drain(app)
    assert [result.get(timeout=0) for result in results] == [value for _, value in canvases]
    assert {result.state for result in results} == {FlowState.SUCCEEDED}


@pytest.mark.usefixtures("url")
def test_a_failed_flow_can_still_succeed(tmp_path: Path) -> None:
    path = tmp_path / "late"
    result = (open_file.s(str(path)) | same.s() | same.s()).apply_async(idempotency_key="k")
    testing.drain(app)
    with pytest.raises(TaskFailed) as raised:
        result.get(timeout=0)
    assert isinstance(raised.value, FileNotFoundError)
    path.write_text("there")
    assert result.retry_failed() == 1
    testing.drain(app)
    assert result.get(timeout=0) == "there"
    again = (open_file.s(str(path)) | same.s() | same.s()).apply_async(idempotency_key="k")
    assert (again.created, again.same_request, again.get(timeout=0)) == (False, True, "there")
    assert result.forget()


def test_a_flow_joins_a_transaction(tmp_path: Path) -> None:
    app.close()
    app.url = f"sqlite:///{tmp_path}/jobs.db"
    assert isinstance(app.driver, Migratable)
    app.driver.migrate()
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        undone = chain(add.s(1), add.s(1)).apply_async(connection=connection)
        connection.rollback()
        connection.execute("BEGIN IMMEDIATE")
        kept = chain(add.s(1), add.s(1)).apply_async(connection=connection)
        connection.commit()
    testing.drain(app)
    assert kept.get(timeout=0) == 2
    with pytest.raises(LookupError):
        undone.info()
    app.close()
