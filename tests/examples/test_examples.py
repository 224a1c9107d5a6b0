"""The programs in examples/, run as their README says, with real workers."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from PIL import Image

from tests.servers.process import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
Program = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TASKHARBOR_URL": f"sqlite:///{tmp_path}/jobs.db",
        "SMTP_PORT": str(free_port()),
        "PAUSE_SECONDS": "0.05",
    }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Program]:
    """Start a program in an example's directory; it is stopped at the end of the test."""
    with ExitStack() as stack:

        def start(example: str, *words: str) -> "subprocess.Popen[str]":
            output = stack.enter_context((tmp_path / f"{words[-1]}.out").open("w"))
            process = subprocess.Popen(
                [sys.executable, *words],
                cwd=EXAMPLES / example,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(stop, process)
            return process

        yield start


def stop(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def run(environment: dict[str, str], start: Program) -> Callable[..., str]:
    """Run an example's ``run.py`` beside a worker of two children, and return what it prints."""

    def run(example: str, *words: str) -> str:
        start(example, "-m", "taskharbor", "worker", "-A", "tasks", "-c", "2", "-Q", "default,mail")
        done = subprocess.run(
            [sys.executable, "run.py", *words],
            cwd=EXAMPLES / example,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_csv_file_is_imported(run: Callable[..., str], tmp_path: Path) -> None:
    database = tmp_path / "shop.db"
    report = run("csv_import", "orders.csv", str(database)).splitlines()
    assert report[0].startswith("38 orders for ")
    assert report[0].endswith(" loaded, 4 refused")
    assert [line.split(":")[0] for line in report[1:]] == [
        "  line 8",
        "  line 20",
        "  line 34",
        "  line 41",
    ]
    with closing(sqlite3.connect(database)) as connection:
        ((count, cents),) = connection.execute("SELECT count(*), sum(cents) FROM orders")
    assert (count, f"{cents / 100:.2f}") == (38, report[0].split()[3])


def test_thumbnails_come_on_a_contact_sheet(run: Callable[..., str], tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    colors = ["red", "green", "blue", "orange", "purple"]
    for number, color in enumerate(colors):
        Image.new("RGB", (640, 480), color).save(pictures / f"{number}.png")
    (pictures / "9.txt").write_text("no picture")
    printed = run("thumbnails", str(pictures), str(tmp_path / "out"))
    assert printed == "5 thumbnails, 1 files that are no pictures\n"
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.size == (640, 320)
        assert sheet.getpixel((80, 60)) == (255, 0, 0)
        assert sheet.getpixel((80, 160 + 60)) == (128, 0, 128)
        assert sheet.getpixel((161, 161)) == (255, 0, 0)  # the frame of what is missing


def test_a_mailing_is_tried_again_or_given_up(
    run: Callable[..., str], start: Program, environment: dict[str, str], tmp_path: Path
) -> None:
    start("email", "sink.py")
    heard = tmp_path / "sink.py.out"
    wait_until(lambda: "listening" in heard.read_text())
    recipients = ["ada@example.com", "bob@busy.example", "nobody@invalid.example"]
    assert run("email", "spring", *recipients) == "spring: 2 sent, 1 refused\n"
    again = run("email", "spring", *recipients)
    assert again == "spring: 2 sent, 1 refused\n"
    mails = sorted(line for line in heard.read_text().splitlines() if line.startswith("mail"))
    assert mails == ["mail for ada@example.com", "mail for bob@busy.example"]
    dead = subprocess.run(
        [sys.executable, "-m", "taskharbor", "dlq", "list", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert "nobody@invalid.example: 550" in dead.stdout
