"""``doctor``: each thing that can be wrong is found, with its remedy."""

import os
import re
import resource
import shutil
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskharbor import codec
from taskharbor.cli import checks
from taskharbor.clock import ManualClock
from taskharbor.drivers.base import InspectableDriver
from taskharbor.drivers.registry import connect
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from tests.cli.conftest import Run, reserve, settle

RunJson = Callable[..., Any]


@pytest.fixture
def examine(run_json: RunJson) -> Callable[..., dict[str, Any]]:
    """``doctor``'s findings that are not ok, by check."""

    def examine(*words: str, code: int = 0) -> dict[str, Any]:
        report = run_json("doctor", *words, code=code)
        assert report["ok"] is (code == 0)
        found = {f["check"]: f for f in report["findings"] if f["level"] != "ok"}
        assert all(finding["remedy"] for finding in found.values())
        return found

    return examine


Examine = Callable[..., dict[str, Any]]


def test_all_is_well(examine: Examine, run: Run) -> None:
    assert examine() == {}
    assert "ok    store" in run("doctor").stdout


def test_jobs_that_nobody_looks_after(
    examine: Examine, run: Run, driver: InspectableDriver, url: str
) -> None:
    long_ago = connect(url, clock=ManualClock(1_000_000_000.0))
    for job_id in ("left", "dead", "waiting"):
        long_ago.enqueue([Message(id=job_id, task="t", body=b"")])
    reserve(long_ago)
    dead = reserve(long_ago)
    settle(long_ago, [Settlement.die(dead.id, dead.fence, error=codec.encode(None))])
    long_ago.close()
    driver.pause("bulk")
    found = examine()
    assert set(found) == {"paused", "queues", "dead", "maintenance"}
    assert found["paused"]["remedy"] == "taskharbor queues resume bulk"
    assert "taskharbor worker -Q default" in found["queues"]["remedy"]
    assert "1 dead jobs" in found["dead"]["found"]
    text = run("doctor").stdout
    assert "warn  maintenance" in text
    assert "→ start a worker, or taskharbor maintenance" in text


def test_a_clock_that_is_wrong(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, driver: InspectableDriver
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 90.0)
    found = examine()["clock"]["found"]
    seconds = re.search(r"differ by ([0-9.]+) s", found)
    assert seconds is not None, found
    # The time that the store took to answer counts for it.
    assert 60.0 < float(seconds[1]) <= 90.0


def test_a_store_of_one_process(examine: Examine) -> None:
    found = examine("--url", "memory://", code=1)
    assert found["sharing"]["level"] == "fail"
    # The environment names another store than the flag.
    assert "TASKHARBOR_URL is memory://cli" in found["settings"]["found"]


def test_a_url_without_a_driver(examine: Examine) -> None:
    found = examine("--url", "mongodb://localhost", code=1)
    assert (found["store"]["level"], found["store"]["remedy"]) == ("fail", "mend the URL")


def test_an_app_that_is_not_there_or_has_no_tasks(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "empty_shop.py").write_text("from taskharbor import *\napp = TaskHarbor()\n")
    assert "there is no module" in examine("-A", "no_shop", code=1)["app"]["found"]
    assert "has no tasks" in examine("-A", "empty_shop")["app"]["found"]


def test_few_open_files(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    assert "ulimit -n 1024" in examine()["limits"]["remedy"]


# --- a store that is a file; no driver needed ---------------------------------------------------


def test_a_directory_that_is_missing_or_closed(tmp_path: Path) -> None:
    (missing,) = checks._file(f"sqlite:///{tmp_path}/no/jobs.db")
    assert (missing.level, missing.remedy) == ("fail", f"make it: mkdir -p {tmp_path}/no")


def test_a_directory_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found, _disk = checks._file(f"sqlite:///{tmp_path}/jobs.db")
    assert found.level == "fail"
    assert found.remedy is not None
    assert "chown" in found.remedy


def test_a_file_that_all_can_read(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    file.touch()
    file.chmod(0o644)
    found, _disk = checks._file(f"sqlite:///{file}")
    assert (found.level, found.remedy) == ("warn", f"chmod 600 {file}*")
    file.chmod(0o600)
    found, _disk = checks._file(f"sqlite:///{file}")
    assert found.level == "ok"


@pytest.mark.parametrize(("free", "level"), [(10, "fail"), (1 << 29, "warn"), (1 << 40, "ok")])
def test_a_disk_that_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 41, 0, free))
    _, disk = checks._file(f"sqlite:///{tmp_path}/jobs.db")
    assert disk.level == level


def test_a_relative_file_is_another_one_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKHARBOR_URL", raising=False)
    (found,) = checks._settings("sqlite:///jobs.db", None, None)
    assert (found.level, "the default" in found.found) == ("warn", True)
    (found,) = checks._settings("sqlite:////srv/jobs.db", "sqlite:////srv/jobs.db", None)
    assert found.level == "ok"


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHARBOR_URL", "redis://:hunter2@cache")
    (found,) = checks._settings("postgresql://shop:hunter2@db/jobs", "--url", None)
    assert "hunter2" not in found.found
