"""``enqueue``: jobs from the command line, and everything that can be wrong with one."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from taskharbor import codec
from taskharbor.drivers.base import InspectableDriver, JobFilter
from taskharbor.message import read_body
from taskharbor.states import State
from tests.cli.conftest import Run

RunJson = Callable[..., Any]

APP = """
from taskharbor import TaskHarbor
app = TaskHarbor()
@app.task(queue="mail", max_attempts=3, timeout=7)
def send(to: str, *, template: str = "hi") -> str:
    return to
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An app in the current directory, by its module's name."""
    name = f"shop_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    return name


def call_of(driver: InspectableDriver, job_id: str) -> tuple[list[Any], dict[str, Any]]:
    job = driver.get(job_id)
    assert job is not None
    return codec.decode_call(read_body(job.body).payload)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ([], ([], {})),
        (['["hi", 2]'], (["hi", 2], {})),
        (['{"to": "a@b.c"}'], ([], {"to": "a@b.c"})),
        (["[1]", '{"two": null}'], ([1], {"two": None})),
        (['{"two": [2.5]}', "[true]"], ([True], {"two": [2.5]})),
    ],
)
def test_arguments_are_an_array_an_object_or_both(
    run: Run, driver: InspectableDriver, words: list[str], call: object
) -> None:
    job_id = run("enqueue", "shop.send", *words).stdout.strip()
    assert call_of(driver, job_id) == call


def test_arguments_from_a_file_and_from_standard_input(
    run: Run, driver: InspectableDriver, tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text('["häfen"]')
    from_file = run("enqueue", "shop.send", f"@{tmp_path}/rows.json").stdout.strip()
    from_stdin = run("enqueue", "shop.send", "-", stdin='{"to": "x"}').stdout.strip()
    assert call_of(driver, from_file) == (["häfen"], {})
    assert call_of(driver, from_stdin) == ([], {"to": "x"})


def test_every_option_arrives_in_the_job(run: Run, driver: InspectableDriver) -> None:
    options = {
        "--queue": "mail",
        "--priority": "-5",
        "--eta": "2100-01-31T10:00:00+02:00",
        "--expires": "2100-02-01T00:00:00Z",
        "--timeout": "1.5m",
        "--max-attempts": "3",
        "--idempotency-key": "january",
        "--job-id": "my-own-id",
    }
    words = [word for option in options.items() for word in option]
    assert run("enqueue", "shop.send", *words).stdout == "my-own-id\n"
    job = driver.get("my-own-id")
    assert job is not None
    assert (job.queue, job.priority, job.idempotency_key) == ("mail", -5, "january")
    assert job.state is State.SCHEDULED
    assert datetime.fromtimestamp(job.due_at, UTC) == datetime(2100, 1, 31, 8, tzinfo=UTC)
    assert job.expires_at == datetime(2100, 2, 1, tzinfo=UTC).timestamp()
    call = read_body(job.body)
    assert (call.timeout, call.policy.max_attempts) == (90.0, 3)


def test_times_may_be_unix_seconds_lengths_and_none(run: Run, driver: InspectableDriver) -> None:
    run("enqueue", "t", "--job-id", "a", "--eta", "4102444800", "--timeout", "none")
    run("enqueue", "t", "--job-id", "b", "--countdown", "2h", "--expires", "1d")
    a, b = driver.get("a"), driver.get("b")
    assert a is not None
    assert b is not None
    assert a.due_at == 4102444800
    assert read_body(a.body).timeout is None
    assert b.due_at - b.enqueued_at == pytest.approx(7200)
    assert b.expires_at is not None
    assert b.expires_at - b.enqueued_at == pytest.approx(86_400)


def test_a_past_eta_means_now(run: Run, driver: InspectableDriver) -> None:
    run("enqueue", "t", "--job-id", "a", "--eta", "2001-01-01T00:00:00Z")
    job = driver.get("a")
    assert job is not None
    assert job.state is State.READY


def test_an_idempotency_key_is_told_apart_from_a_conflict(run_json: RunJson) -> None:
    first = run_json("enqueue", "t", "[1]", "--idempotency-key", "k")
    replay = run_json("enqueue", "t", "[1]", "--idempotency-key", "k")
    conflict = run_json("enqueue", "t", "[2]", "--idempotency-key", "k")
    assert first == {"id": first["id"], "task": "t", "created": True, "same_request": True}
    assert replay == {**first, "created": False}
    assert conflict == {**first, "created": False, "same_request": False}


def test_a_conflict_is_said_on_standard_error(run: Run) -> None:
    first = run("enqueue", "t", "[1]", "--idempotency-key", "k")
    second = run("enqueue", "t", "[2]", "--idempotency-key", "k")
    assert second.stdout == first.stdout
    assert "other arguments" in second.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["t", "[1"], "is not JSON"),
        (["t", "hi"], "write arguments as"),
        (["t", '"hi"'], """write '["hi"]'"""),
        (["t", "[NaN]"], "NaN is no JSON"),
        (["t", "[" * 100_000], "nested too deep"),
        (["t", "[1]", "[2]"], "two arrays"),
        (["t", "@no/such/file"], "can't be read"),
        (["t", "--eta", "2030-01-31T09:00:00"], "has no time zone"),
        (["t", "--eta", "2030-01-31"], "has no time zone"),
        (["t", "--eta", "tomorrow"], "is not a moment"),
        (["t", "--eta", "1e300"], "year 9999"),
        (["t", "--eta", "2030-01-31T09:00:00Z", "--countdown", "5"], "exclude each other"),
        (["t", "--countdown", "-1"], "is not a length of time"),
        (["t", "--countdown", "nan"], "is not a length of time"),
        (["t", "--countdown", "5w"], "15m, 2h, 7d"),
        (["t", "--expires", "0"], "more than 0"),
        (["t", "--timeout", "0"], "above 0"),
        (["t", "--timeout", "-3"], "is not a length of time"),
        (["t", "--max-attempts", "0"], "0 is not in the range x>=1"),
        (["t", "--priority", "101"], "not in the range -100<=x<=100"),
        (["t", "--queue", "no spaces"], "not a valid name"),
        (["t", "--job-id", "a/b"], "not a valid name"),
        (["t", "--idempotency-key", "\x07"], "printable"),
        (["no/slashes"], "not a valid name"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(
    run: Run, driver: InspectableDriver, words: list[str], complaint: str
) -> None:
    result = run("enqueue", *words, code=2)
    assert complaint in " ".join(result.stderr.split())
    assert not driver.list_jobs(JobFilter()).jobs


def test_with_the_app_its_options_apply(run: Run, driver: InspectableDriver, shop: str) -> None:
    job_id = run("enqueue", "-A", shop, f"{shop}.send", '["a@b.c"]').stdout.strip()
    job = driver.get(job_id)
    assert job is not None
    call = read_body(job.body)
    assert (job.queue, call.policy.max_attempts, call.timeout) == ("mail", 3, 7)


def test_with_the_app_arguments_are_checked(run: Run, shop: str) -> None:
    result = run("enqueue", "-A", shop, f"{shop}.send", '{"too": "a@b.c"}', code=2)
    assert "missing a required argument: 'to'" in result.stderr


def test_with_the_app_an_unknown_task_is_refused(run: Run, shop: str) -> None:
    result = run("enqueue", "-A", f"{shop}:app", f"{shop}.sand", code=78)
    assert f"did you mean '{shop}.send'?" in result.stderr


@pytest.mark.parametrize(
    ("app", "complaint"),
    [
        ("no_such_module", "there is no module 'no_such_module'"),
        ("json", "no TaskHarbor app"),
        ("json:dumps", "not a TaskHarbor app"),
        ("shop.py", "-A shop"),
    ],
)
def test_an_app_that_is_not_there(run: Run, app: str, complaint: str) -> None:
    assert complaint in run("enqueue", "-A", app, "t", code=78).stderr


def test_an_app_that_raises_shows_its_traceback(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_shop.py").write_text("import taskharbor\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = run("enqueue", "-A", "broken_shop", "t", code=78)
    assert "importing broken_shop failed" in result.stderr
    assert "ZeroDivisionError" in result.stderr


@pytest.mark.parametrize(
    ("bad_url", "complaint"),
    [
        ("mongodb://localhost", "no driver for the URL scheme 'mongodb'"),
        ("jobs.db", "has no scheme"),
        ("memory://a/b", "write memory://"),
    ],
)
def test_a_url_that_cannot_work(run: Run, bad_url: str, complaint: str) -> None:
    assert complaint in run("enqueue", "t", "--url", bad_url, code=78).stderr


def test_errors_are_json_when_json_was_asked(run: Run) -> None:
    result = run("enqueue", "t", "--url", "mongodb://localhost", "--json", code=78)
    assert result.stdout == ""
    error = json.loads(result.stderr)["error"]
    assert error["type"] == "UnknownDriver"
    assert "mongodb" in error["message"]


@pytest.mark.parametrize("name", ["", "no name", "\udcff"])
def test_a_task_that_can_not_be_named_so_is_refused(
    run: Run, driver: InspectableDriver, name: str
) -> None:
    assert "is not a valid name" in run("enqueue", name, code=2).stderr
    assert driver.list_jobs(JobFilter()).jobs == []
