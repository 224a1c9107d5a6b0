"""Starting: what can't work is said at once and clearly; what may work later is waited for."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from taskharbor import State, TaskFailed, TaskHarbor
from taskharbor.worker.config import ExitCode
from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('no such luck')", "no such luck"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("x = 1", "no TaskHarbor app"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("from taskharbor import TaskHarbor\napp = TaskHarbor('gopher://x')", "gopher"),
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
    ],
)
def test_an_app_that_cannot_run_is_one_clear_error_and_no_crash_loop(
    worker: StartWorker, tmp_path: Path, source: str, said: str
) -> None:
    (tmp_path / "broken.py").write_text(source)
    running = worker(app_path="broken", ready=False)
    assert running.wait() == ExitCode.CONFIGURATION
    (error,) = running.events("the worker can't run")
    assert said in error["error"]


def test_an_import_that_is_killed_from_outside_is_begun_anew(
    worker: StartWorker, app: TaskHarbor, tmp_path: Path
) -> None:
    """Not the app's fault, so no exit code that says so: service managers give up on that one."""
    (tmp_path / "slow.py").write_text(
        "import os, pathlib, time\n"
        "first = pathlib.Path('imported')\n"
        "if not first.exists():\n"
        "    first.write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "from tests.scenarios.shop import app\n"
    )
    running = worker(app_path="slow:app", ready=False)
    first = tmp_path / "imported"
    os.kill(int(wait_until(lambda: first.exists() and first.read_text(), what="import")), 9)
    running.wait_event("worker started")
    (warning,) = running.events("the process that imports the app died")
    assert "SIGKILL" in warning["ending"]
    assert shop.noted.delay(3).get(timeout=30) == 3


def test_a_missing_app_is_named(worker: StartWorker) -> None:
    running = worker(app_path="there.is.none", ready=False)
    assert running.wait() == ExitCode.CONFIGURATION
    assert "no module 'there'" in running.events("the worker can't run")[0]["error"]


def test_an_import_that_hangs_is_named_and_shows_where(worker: StartWorker, tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(
        "import time, pathlib\npathlib.Path('importing').touch()\ntime.sleep(600)\n"
    )
    running = worker(app_path="hanging:app", ready=False)
    warning = running.wait_event("the app is still being imported")[0]
    assert warning["app"] == "hanging:app"
    wait_until((tmp_path / "importing").exists, what="the import to begin")
    running.send(signal.SIGUSR1)
    wait_until(lambda: 'hanging.py", line 3 in <module>' in running.log(), what="the traceback")
    running.send(signal.SIGTERM)
    assert running.wait() == ExitCode.OK


def test_the_banner_says_what_runs_against_what(worker: StartWorker, url: str) -> None:
    running = worker(queues=(("mail", 3), ("default", 1)))
    (banner,) = running.events("worker started")
    assert banner["app"].startswith("tests.scenarios.shop:app")
    assert banner["store"] == url
    assert banner["queues"] == "mail (weight 3), default"
    assert banner["concurrency"].startswith("2 children")
    assert banner["pid"] == str(running.pid)


def test_an_app_whose_import_leaves_a_thread_is_imported_in_each_child(
    worker: StartWorker, app: TaskHarbor, tmp_path: Path
) -> None:
    (tmp_path / "threaded.py").write_text(
        "import os, threading, time\n"
        "from tests.scenarios.shop import app\n"
        "imported_by = os.getpid()\n"
        "ticks = []\n"
        "def tick():\n"
        "    while True:\n"
        "        ticks.append(1)\n"
        "        time.sleep(0.01)\n"
        "threading.Thread(target=tick, name='ticker').start()\n"
        "@app.task\n"
        "def ticking():\n"
        "    seen = len(ticks)\n"
        "    deadline = time.monotonic() + 60\n"
        "    while len(ticks) == seen and time.monotonic() < deadline:\n"
        "        time.sleep(0.005)\n"
        "    return [imported_by == os.getpid(), len(ticks) > seen]\n"
    )
    running = worker(app_path="threaded:app")
    (warning,) = running.events("importing the app leaves")
    assert warning["left"] == ["thread 'ticker'"]
    task = app.task(name="threaded.ticking")(ticking)
    assert task.delay().get(timeout=90) == [True, True]
    assert running.stop() == ExitCode.OK


def ticking() -> list[bool]:
    """Stands for ``threaded.ticking``, which only the worker has."""
    raise NotImplementedError


def answer() -> int:
    """Stands for ``newer.answer``, which only the newer worker has."""
    raise NotImplementedError


def test_an_open_socket_left_by_the_import_is_noticed_too(
    worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "socketed.py").write_text(
        "import socket\nfrom tests.scenarios.shop import app\nkept = socket.socketpair()\n"
    )
    running = worker(app_path="socketed:app")
    (warning,) = running.events("importing the app leaves")
    assert len(warning["left"]) == 2
    assert shop.noted.delay(3).get(timeout=90) == 3


def test_child_start_hooks_run_in_each_child(worker: StartWorker, tmp_path: Path) -> None:
    (tmp_path / "hooked.py").write_text(
        "import os, pathlib\n"
        "from tests.scenarios.shop import app\n"
        "@app.child_start\n"
        "def hello():\n"
        "    pathlib.Path(f'hook-{os.getpid()}').touch()\n"
    )
    running = worker(app_path="hooked:app")
    pids = {process.pid for process in running.children()}
    wait_until(lambda: {f"hook-{pid}" for pid in pids} <= {p.name for p in tmp_path.iterdir()})


def test_a_failing_child_start_hook_backs_off_and_stops_cleanly(
    worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "unhooked.py").write_text(
        "from tests.scenarios.shop import app\n"
        "@app.child_start\n"
        "def fail():\n"
        "    raise OSError('no device')\n"
    )
    running = worker(app_path="unhooked:app", ready=False)
    failures = running.wait_event("the app could not start in this child", count=6)
    assert "no device" in failures[0]["exception"]
    assert running.stop() == ExitCode.OK
    # 0, 50 ms, 100 ms, ... for each of two children: far from a busy loop.
    assert len(running.events("the app could not start in this child")) < 30


def test_an_unknown_task_is_snoozed_then_dead(worker: StartWorker, app: TaskHarbor) -> None:
    worker()
    job = app.task(name="a.stranger", unknown_task_seconds=1.0)(ticking).delay()
    with pytest.raises(TaskFailed, match=r"a\.stranger"):
        job.get(timeout=90)
    record = app.driver.get(job.id)
    assert record is not None
    assert record.finished_at is not None
    assert record.finished_at - record.enqueued_at >= 1.0
    assert (record.reason, record.attempts) == ("unknown_task", 1)


def test_a_task_of_a_newer_release_is_run_by_the_worker_that_knows_it(
    worker: StartWorker, app: TaskHarbor, tmp_path: Path
) -> None:
    old = worker()
    job = app.task(name="newer.answer")(answer).delay()
    wait_until(lambda: job.state is State.SCHEDULED, what="the snooze")
    (tmp_path / "newer.py").write_text(
        "from tests.scenarios.shop import app\n@app.task\ndef answer():\n    return 42\n"
    )
    old.stop()
    worker(app_path="newer:app")
    assert job.get(timeout=90) == 42


def test_hup_signals_and_stop_during_the_import_end_it_cleanly(
    worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        "import time, pathlib\npathlib.Path('importing').touch()\ntime.sleep(600)\n"
    )
    running = worker(app_path="slow", ready=False)
    wait_until((tmp_path / "importing").exists, what="the import to begin")
    running.send(signal.SIGTERM)
    assert running.wait() == ExitCode.OK
