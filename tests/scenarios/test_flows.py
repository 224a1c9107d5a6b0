"""Flows through real workers: nothing is lost or done twice, whatever dies in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from taskharbor import TaskFailed, chain, chord, group
from taskharbor.flow.plan import FlowState
from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker, on_both_stores

pytestmark = on_both_stores


def test_canvases_come_to_what_they_say(worker: StartWorker) -> None:
    worker(concurrency=2)
    add, total = shop.add, shop.total
    flows: list[tuple[Any, Any]] = [
        (chain(add.s(1, 1), add.s(1), add.s(1)), 4),
        (group(add.s(i, i) for i in range(5)), [0, 2, 4, 6, 8]),
        (chord([chain(add.s(1, 1), add.s(1)), add.s(2, 2)], total.s()) | add.s(10), 17),
        (group(add.s(1, 1), add.s(2, 2)) | group(total.s(), total.s()), [6, 6]),
        (chord([shop.spread.s(3), shop.spread.s(4)], total.s()), 18),
    ]
    results = [flow.delay() for flow, _ in flows]
    assert [result.get(timeout=90) for result in results] == [value for _, value in flows]
    assert {result.state for result in results} <= {FlowState.SUCCEEDED, FlowState.RUNNING}


def test_a_chord_whose_member_s_child_is_killed_still_fires_once(
    worker: StartWorker, tmp_path: Path
) -> None:
    running = worker(concurrency=2)
    slow = shop.until_first.s(str(tmp_path / "never"))
    members = [shop.add.s(i, i) for i in range(20)]
    result = chord([*members, slow], shop.count.s()).delay()
    (first,) = running.wait_noted("started")
    os.kill(first["pid"], signal.SIGKILL)
    assert result.get(timeout=90) == 21
    assert len(running.journal_entries("counted")) == 1


def test_a_job_that_hands_its_work_over_runs_once(worker: StartWorker) -> None:
    running = worker(concurrency=2)
    result = chain(shop.spread_noted.s(3), shop.add.s(100)).delay()
    assert result.get(timeout=90) == 106
    assert len(running.journal_entries("spread")) == 1


def test_a_dead_member_ends_the_flow_and_its_retry_saves_it(
    worker: StartWorker, tmp_path: Path
) -> None:
    worker()
    path = tmp_path / "there"
    needs = shop.needs.using(max_attempts=1).s(str(path))
    result = chord([needs, shop.add.s(1, 1)], shop.count.s()).delay()
    with pytest.raises(TaskFailed) as raised:
        result.get(timeout=90)
    assert isinstance(raised.value, FileNotFoundError)
    path.touch()
    assert result.retry_failed() == 1
    assert result.get(timeout=90) == 2
