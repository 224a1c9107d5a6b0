"""The main flows, as one types them: a real worker, real commands, real stores."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["sqlite", "memory"])
def environment(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Processes of a test find their store and this checkout in it."""
    directory = tempfile.mkdtemp(prefix="th-")
    urls = {"sqlite": f"sqlite:///{directory}/jobs.db", "memory": "memory://flows?linger=30"}
    yield {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_RUNTIME_DIR": directory,
        "TASKHARBOR_URL": urls[request.param],
    }
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def taskharbor(environment: dict[str, str], tmp_path: Path) -> Command:
    def taskharbor(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "taskharbor", *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    return taskharbor


@pytest.fixture
def start_worker(
    environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    workers: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "taskharbor", "worker", "-c", "1", *words]
            worker = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=log)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.terminate()
        worker.wait(90)


StartWorker = Callable[..., subprocess.Popen[bytes]]


def test_trying_it_without_code(taskharbor: Command, start_worker: StartWorker) -> None:
    worker = start_worker()
    echoed = taskharbor("enqueue", "taskharbor.echo", '["hi"]', "--wait", "90")
    job_id, value = echoed.stdout.splitlines()
    assert json.loads(value) == "hi"

    taskharbor("enqueue", "taskharbor.fail", "--max-attempts", "1", "--job-id", "f", "--wait", "90",
               code=1)  # fmt: skip
    dead = json.loads(taskharbor("dlq", "list", "--json").stdout)["jobs"]
    assert [(job["id"], job["error"]["type"]) for job in dead] == [("f", "RuntimeError")]

    history = json.loads(taskharbor("inspect", job_id, "--json").stdout)["history"]
    assert [attempt["reason"] for attempt in history] == ["succeeded"]

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(90) == 0


def test_cancelling_a_running_job(taskharbor: Command, start_worker: StartWorker) -> None:
    start_worker("--lease", "6")
    taskharbor("enqueue", "taskharbor.sleep", "[600]", "--job-id", "nap")

    def shown() -> dict[str, object]:
        job: dict[str, object] = json.loads(taskharbor("inspect", "nap", "--json").stdout)
        return job

    wait_until(lambda: shown()["progress"], what="the job's first progress")
    taskharbor("cancel", "nap")
    taskharbor("result", "nap", "--wait", "90")
    assert float(str(shown()["result"])) < 600


def test_ctrl_c_while_waiting(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "taskharbor", "enqueue", "taskharbor.echo", "--wait", "600"]
    waiting = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE)
    assert waiting.stdout is not None
    assert waiting.stdout.readline()  # the job's id: now it waits
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(90) == 130
    waiting.stdout.close()


def test_an_app_from_the_current_directory(
    taskharbor: Command, start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(
        "from taskharbor import TaskHarbor\n"
        "app = TaskHarbor()\n"
        "@app.task(queue='mail')\n"
        "def greet(name: str) -> str:\n"
        "    return f'Hello, {name}!'\n"
    )
    start_worker("-A", "shop", "-Q", "mail:3,default")
    done = taskharbor("enqueue", "-A", "shop", "shop.greet", '["Ada"]', "--wait", "90")
    assert json.loads(done.stdout.splitlines()[1]) == "Hello, Ada!"


def test_a_worker_whose_app_is_broken_says_so(start_worker: StartWorker, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    worker = start_worker("-A", "broken")
    assert worker.wait(90) == 78
    assert "ZeroDivisionError" in (tmp_path / "worker.log").read_text()


def test_a_worker_on_a_store_of_one_process_says_so(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker("--url", "memory://")
    assert worker.wait(90) == 78
    assert "lives in one process" in (tmp_path / "worker.log").read_text()
