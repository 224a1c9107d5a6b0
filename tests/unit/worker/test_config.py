"""A worker's settings: what can't work is refused with the option's name."""

from typing import Any

import pytest

from taskharbor.errors import ConfigurationError
from taskharbor.worker.config import WorkerConfig, parse_queues


def test_defaults_derive_from_the_lease_and_the_pool() -> None:
    config = WorkerConfig(app_path="shop.tasks", lease_seconds=9, pool="thread")
    assert (config.heartbeat_seconds, config.silent_after_seconds) == (3.0, 4.5)
    assert config.slots == 8
    assert config.concurrency >= 1
    assert config.queue_names == ("default",)


def test_json_round_trip_keeps_everything() -> None:
    config = WorkerConfig(
        app_path="shop.tasks:app", url="sqlite:///x.db", queues=(("a", 3), ("b", 1)), concurrency=2
    )
    assert WorkerConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"app_path": "shop/tasks.py"}, "-A"),
        ({"app_path": ""}, "-A"),
        ({"concurrency": -1}, "--concurrency"),
        ({"concurrency": True}, "--concurrency"),
        ({"lease_seconds": 0}, "--lease"),
        ({"lease_seconds": float("nan")}, "--lease"),
        ({"heartbeat_seconds": 20.0}, "--heartbeat"),
        ({"grace_seconds": -1.0}, "--grace"),
        ({"slots": 2}, "--pool thread"),
        ({"pool": "gevent"}, "--pool"),
        ({"prefetch_max": 0}, "--prefetch"),
        ({"max_tasks_per_child": -1}, "--max-tasks-per-child"),
        ({"max_memory_per_child": 1.5}, "--max-memory-per-child"),
        ({"queues": ()}, "-Q"),
        ({"queues": (("a b", 1),)}, "queue"),
        ({"queues": (("a", 0),)}, "weight of a"),
        ({"queues": (("a", 1), ("a", 2))}, "more than once"),
        ({"log_level": "loud"}, "--loglevel"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(
    settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        WorkerConfig(**{"app_path": "shop.tasks", **settings})


@pytest.mark.parametrize(
    ("text", "queues"),
    [
        ("default", (("default", 1),)),
        ("mail:3,default", (("mail", 3), ("default", 1))),
        (" mail:3 , a:b ", (("mail", 3), ("a:b", 1))),
        ("a:b:2", (("a:b", 2),)),
    ],
)
def test_queue_lists_parse(text: str, queues: tuple[tuple[str, int], ...]) -> None:
    assert parse_queues(text) == queues


@pytest.mark.parametrize("text", ["", ",", "a,,b", "a:0", "a,a", "é"])
def test_bad_queue_lists_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_queues(text)
