"""``demo``: its parts, how it judges itself, and the real thing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from taskharbor.cli.demo import orders, play
from taskharbor.cli.demo.table import Running, Table
from taskharbor.cli.root import cli
from tests.waiting import best_of

ORDER = orders.Order(1, "key", "AT", "2026-01-01", 1250)
GOOD = play.Summary(
    rows=500,
    rows_expected=500,
    rows_written_again=20,
    checksum="abc",
    checksum_expected="abc",
    jobs=11,
    succeeded=11,
    retries=1,
    crashes=1,
    kills=1,
    interrupted_job="job",
    recovery_seconds=0.05,
    seconds=2.0,
    url="sqlite:////tmp/jobs.db",
    directory="/tmp",
)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    table = Table(tmp_path / "imported.db")
    table.create()
    yield table
    table.close()


def test_the_file_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        orders.write_file(tmp_path / name, 120)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_the_chunks_are_the_file(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    orders.write_file(path, 120)
    chunks = orders.split(path)
    assert [chunk.rows for chunk in chunks] == [50, 50, 20]
    read = list(chain.from_iterable(orders.read_chunk(path, chunk) for chunk in chunks))
    assert [order.order_id for order in read] == list(range(1, 121))
    assert orders.checksum(read) == orders.expected_checksum(path)


def test_a_row_written_twice_is_one_row(table: Table) -> None:
    table.write([ORDER], fence=1)
    table.write([ORDER], fence=2)
    assert (table.rows(), table.written_again()) == (1, 1)


def test_an_attempt_that_lost_its_lease_overwrites_nothing(table: Table) -> None:
    table.write([ORDER], fence=2)
    table.write([ORDER._replace(cents=0)], fence=1)
    assert table.checksum() == orders.checksum([ORDER])


def test_an_attempt_is_open_until_it_ends_in_whatever_way(table: Table) -> None:
    with pytest.raises(ConnectionError), table.attempt(1, "a", 0, 100):
        raise ConnectionError
    killed = Running(2, "b", 101)
    with table.attempt(*killed[:2], 1, killed.pid):  # as long as the test looks
        assert table.half_done() is None
        table.write([ORDER], fence=2)
        assert table.half_done() == killed
        assert (table.interrupted(1), table.interrupted(2)) == (False, True)
        assert table.next_start(killed) is None
        with table.attempt(3, "b", 1, 102):
            assert table.next_start(killed) is not None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rows": 499}, "499 rows instead of 500"),
        ({"checksum": "abd"}, "checksum"),
        ({"succeeded": 10}, "1 jobs did not succeed"),
        ({"interrupted_job": None}, "no child was killed"),
        ({"recovery_seconds": None}, "not begun again"),
    ],
)
def test_a_proof_that_fails_is_said_and_told_by_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    bad = replace(GOOD, **change)
    monkeypatch.setattr(play, "play", lambda *arguments: bad)
    words = ["demo", "--directory", str(tmp_path / "new")]
    for_people = CliRunner().invoke(cli, words)
    assert for_people.exit_code == 1
    assert f"The proof fails: {bad.problems[0]}" in for_people.stderr
    for_programs = CliRunner().invoke(cli, [*words, "--json"])
    assert for_programs.exit_code == 1
    shape = json.loads(for_programs.stdout)
    assert shape["ok"] is False
    assert problem in shape["problems"][0]


def test_a_proof_that_holds() -> None:
    assert GOOD.problems == []


def test_the_demo_takes_no_directory_that_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    result = CliRunner().invoke(cli, ["demo", "--directory", str(tmp_path)])
    assert result.exit_code == 2
    assert "is not empty" in result.stderr
    result = CliRunner().invoke(cli, ["demo", "--directory", "/dev/null/demo"])
    assert (result.exit_code, "can't be used" in result.stderr) == (2, True)


def test_the_demo_says_where_to_look_when_its_worker_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    result = CliRunner().invoke(cli, ["demo", "--rows", "500", "--directory", str(tmp_path)])
    assert result.exit_code == 1
    assert "the worker ended by itself (1)" in result.stderr
    assert "worker.log" in result.stderr


def test_the_demo(tmp_path: Path) -> None:
    numbers = count()
    recovery = best_of(lambda: run_demo(tmp_path / str(next(numbers))), below=1.5, tries=5)
    assert recovery < 1.5


def run_demo(directory: Path) -> float:
    """The seconds until the interrupted job was begun again."""
    done = subprocess.run(
        [sys.executable, "-m", "taskharbor", "demo", "--directory", str(directory), "--json"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, (done.stdout, done.stderr, (directory / "worker.log").read_text())
    summary = json.loads(done.stdout)
    assert summary["ok"] is True
    assert summary["rows"] == 5000
    assert summary["checksum"] == summary["checksum_expected"]
    assert (summary["jobs"], summary["succeeded"]) == (101, 101)
    # Ten chunks fail once, but for those that were killed on their first attempt instead.
    assert 10 - summary["kills"] <= summary["retries"] <= 10
    assert summary["crashes"] >= 1
    return float(summary["recovery_seconds"])
