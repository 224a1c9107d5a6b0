"""What the supervisor says about an import that takes its time."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from random import Random

import pytest
from structlog.testing import capture_logs

from taskharbor.worker.config import WorkerConfig
from taskharbor.worker.generations import LONG_IMPORT_SECONDS, Generations
from taskharbor.worker.table import SharedTable
from taskharbor.worker.wake import Wake


@pytest.fixture
def generations() -> Iterator[Generations]:
    wake = Wake.create()
    with SharedTable(2, 1) as table:
        generations = Generations(
            WorkerConfig(app_path="there.is.none", concurrency=1), table, wake, Random(1)
        )
        yield generations
        generations.abandon()
    wake.close()


def test_a_long_import_is_said_again_ever_more_rarely(generations: Generations) -> None:
    assert generations.remind(0.0) == inf, "nothing is being imported"
    generations.load()
    loading = generations.loading
    assert loading is not None
    began = loading.started_at
    now = generations.remind(began)
    assert now == began + LONG_IMPORT_SECONDS
    with capture_logs() as logs:
        seconds = []
        for _ in range(4):
            seconds.append(now - began)
            now = generations.remind(now)
    assert [round(each) for each in seconds] == [5, 10, 20, 40]
    assert [line["seconds"] for line in logs] == [5.0, 10.0, 20.0, 40.0]
    assert {line["pid"] for line in logs} == {loading.process.pid}
