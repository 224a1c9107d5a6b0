"""What the conformance suite can't see of the store in this process."""

import os
import random

import pytest

from taskharbor.drivers.memory.timeline import Timeline
from taskharbor.drivers.registry import connect
from taskharbor.errors import ConfigurationError


def test_a_timeline_is_a_sorted_map() -> None:
    rng = random.Random(1)
    timeline: Timeline[float] = Timeline()
    expected: dict[str, float] = {}
    for _ in range(5000):
        name = f"n{rng.randrange(60)}"
        match rng.randrange(4):
            case 0 | 1:
                key = float(rng.randrange(20))
                timeline.set(name, key)
                expected[name] = key
            case 2:
                timeline.discard(name)
                expected.pop(name, None)
            case 3 if expected:
                key, name = timeline.pop()
                assert (key, name) == min((k, n) for n, k in expected.items())
                del expected[name]
        assert len(timeline) == len(expected)
        by_key = sorted((k, n) for n, k in expected.items())
        assert timeline.first() == (by_key[0] if by_key else None)
        assert timeline.until(9.0, 5) == [n for k, n in by_key if k <= 9.0][:5]


def test_a_timeline_that_only_moves_does_not_grow() -> None:
    timeline: Timeline[float] = Timeline()
    for second in range(10_000):
        timeline.set("lease", float(second))
    assert len(timeline._heap) < 200


def test_pop_from_an_empty_timeline() -> None:
    with pytest.raises(IndexError):
        Timeline().pop()


def test_each_driver_in_this_process_has_jobs_of_its_own() -> None:
    first, second = connect("memory://"), connect("memory://")
    first.pause("mail")
    assert [queue.name for queue in first.queues()] == ["mail"]
    assert second.queues() == []


def test_a_copy_of_the_store_in_a_forked_child_is_refused() -> None:
    driver = connect("memory://")
    pid = os.fork()
    if pid == 0:
        try:
            driver.queues()
        except ConfigurationError:
            os._exit(7)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_the_memory_store_joins_no_transaction() -> None:
    with pytest.raises(ConfigurationError, match="no transactions"):
        connect("memory://").enqueue([], connection=object())
