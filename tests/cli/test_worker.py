"""``worker`` and ``maintenance``: what their flags become. What they do is tested with real
processes elsewhere."""

import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import taskharbor.maintenance.run
import taskharbor.worker.run
from taskharbor.cli.root import cli


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings that a worker or a maintenance process was started with."""
    started: list[Any] = []

    def run(config: Any) -> int:
        started.append(config)
        return 0

    monkeypatch.setattr(taskharbor.worker.run, "run_worker", run)
    monkeypatch.setattr(taskharbor.maintenance.run, "run_maintenance", run)
    return started


def invoke(words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, words.split())
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_a_worker_without_flags_runs_the_built_in_tasks(started: list[Any]) -> None:
    invoke("worker")
    (config,) = started
    assert config.app_path == "taskharbor.builtin"
    assert config.url is None
    assert config.queues == (("default", 1),)
    assert (config.lease_seconds, config.grace_seconds) == (30.0, 30.0)


def test_every_flag_of_a_worker_arrives(started: list[Any]) -> None:
    invoke(
        "worker -A shop.tasks:app --url memory://jobs -Q mail:3,default -c 3 --pool thread "
        "--slots 5 --lease 1m --heartbeat 10 --grace 5 --prefetch 7 --max-tasks-per-child 100 "
        "--max-memory-per-child 1.5G --reload -l WARNING --log-format json"
    )
    (config,) = started
    assert (config.app_path, config.url) == ("shop.tasks:app", "memory://jobs")
    assert config.queues == (("mail", 3), ("default", 1))
    assert (config.concurrency, config.pool, config.slots) == (3, "thread", 5)
    assert (config.lease_seconds, config.heartbeat_seconds, config.grace_seconds) == (60, 10, 5)
    assert (config.prefetch_max, config.max_tasks_per_child) == (7, 100)
    assert config.max_memory_per_child == 3 << 29
    assert (config.reload, config.log_level, config.log_format) == (True, "warning", "json")


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ("-Q mail:0", 78, "the weight of mail"),
        ("-Q mail,mail", 78, "more than once"),
        ("-Q ,", 78, "not a valid name"),
        ("-c 0", 2, "0 is not in the range x>=1"),
        ("-c -3", 2, "-3 is not in the range"),
        ("-c many", 2, "not a valid integer"),
        ("--slots 4", 78, "use --pool thread or --pool async"),
        ("--lease 0", 78, "--lease"),
        ("--lease 2d", 78, "at most 86400"),
        ("--lease -5", 2, "is not a length of time"),
        ("--heartbeat 20", 78, "--heartbeat"),
        ("--max-memory-per-child 300000", 2, "write a unit"),
        ("--max-memory-per-child 0G", 2, "write a unit"),
        ("--pool fork", 2, "'fork' is not one of 'process', 'thread', 'async'"),
        ("-l loud", 2, "'loud' is not one of"),
        ("-A shop/tasks.py", 78, "not of the form"),
    ],
)
def test_settings_that_cannot_work_are_named(
    started: list[Any], words: str, code: int, complaint: str
) -> None:
    result = invoke(f"worker {words}", code)
    assert complaint in " ".join(result.stderr.split())
    assert not started


def test_maintenance_takes_the_url_from_flag_app_or_environment(
    started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "shop_for_maintenance"
    source = "from taskharbor import TaskHarbor\napp = TaskHarbor('memory://app')\n"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("TASKHARBOR_URL", "memory://environment")
    invoke("maintenance --lease 5 -l debug")
    invoke(f"maintenance -A {module}")
    invoke(f"maintenance -A {module} --url memory://flag")
    urls = ["memory://environment", "memory://app", "memory://flag"]
    assert [config.url for config in started] == urls
    assert (started[0].lease_seconds, started[0].log_level) == (5.0, "debug")
