"""Looking at jobs and steering them: ``list``, ``inspect``, ``result``, ``cancel``, ``job``,
``dlq``, ``queues``."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from taskharbor import codec
from taskharbor.drivers.base import InspectableDriver, Renewal
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.cli.conftest import Run, reserve, settle

RunJson = Callable[..., Any]


def put(driver: InspectableDriver, job_id: str, **fields: Any) -> None:
    from taskharbor.message import Call, write_body

    body = write_body(Call(codec.encode_call((1,), {"two": 2})))
    fields = {"task": "shop.send", "body": body, **fields}
    driver.enqueue([Message(id=job_id, **fields)])


def die(driver: InspectableDriver, job_id: str, *, queue: str = "default", **fields: Any) -> None:
    put(driver, job_id, queue=queue, **fields)
    try:
        raise ValueError("no such address")
    except ValueError as error:
        failure = codec.Failure.of(error).encode()
    job = reserve(driver, queue)
    settle(driver, [Settlement.die(job.id, job.fence, error=failure)])


def succeed(driver: InspectableDriver, job_id: str, result: object) -> None:
    put(driver, job_id)
    job = reserve(driver)
    settle(driver, [Settlement.succeed(job.id, job.fence, codec.encode(result))])


BRIEF_KEYS = {
    *("id", "task", "queue", "state", "reason", "priority", "attempts", "losses"),
    *("enqueued_at", "due_at", "started_at", "lease_expires_at", "finished_at", "expires_at"),
    *("holder", "cancel_requested", "idempotency_key", "flow", "awaits", "progress", "error"),
}
FULL_KEYS = BRIEF_KEYS | {
    *("fence", "args", "kwargs", "timeout", "max_attempts", "max_losses", "backoff", "headers"),
    *("result", "result_stored", "saved", "history", "problems"),
}


def test_list_pages_through_what_matches(driver: InspectableDriver, run_json: RunJson) -> None:
    for number in range(5):
        put(driver, f"job-{number}", queue="mail" if number % 2 else "default")
    first = run_json("list", "--limit", "3")
    rest = run_json("list", "--limit", "3", "--cursor", first["cursor"])
    assert [job["id"] for job in first["jobs"]] == ["job-4", "job-3", "job-2"]
    assert [job["id"] for job in rest["jobs"]] == ["job-1", "job-0"]
    assert rest["cursor"] is None
    assert set(first["jobs"][0]) == BRIEF_KEYS
    mail = run_json("list", "--queue", "mail", "--state", "ready", "--task", "shop.send")
    assert [job["id"] for job in mail["jobs"]] == ["job-3", "job-1"]


def test_list_fills_its_page_though_the_store_stops_early(
    driver: InspectableDriver, run_json: RunJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskharbor.drivers.memory import MemoryDriver

    for number in range(5):
        put(driver, f"job-{number}")
    whole = MemoryDriver.list_jobs

    def one_at_a_time(self: Any, where: Any, *, cursor: str | None = None, limit: int) -> Any:
        return whole(self, where, cursor=cursor, limit=1)

    monkeypatch.setattr(MemoryDriver, "list_jobs", one_at_a_time)
    page = run_json("list", "--limit", "3")
    assert [job["id"] for job in page["jobs"]] == ["job-4", "job-3", "job-2"]
    assert len(run_json("list", "--cursor", page["cursor"])["jobs"]) == 2


def test_list_for_people(driver: InspectableDriver, run: Run) -> None:
    assert run("list").stdout == "No jobs.\n"
    put(driver, "a")
    put(driver, "b")
    result = run("list", "--limit", "1")
    heading, row = result.stdout.splitlines()
    assert heading.split() == ["ID", "STATE", "TASK", "QUEUE", "ATTEMPTS", "SINCE", "WHY"]
    assert row.split()[:4] == ["b", "ready", "shop.send", "default"]
    assert "--cursor" in result.stderr


def test_a_cursor_of_somebody_else_is_refused(run: Run) -> None:
    assert "begin again" in run("list", "--cursor", "page two", code=2).stderr


def test_inspect_shows_the_call_and_every_attempt(
    driver: InspectableDriver, run_json: RunJson
) -> None:
    die(driver, "a", idempotency_key="k")
    job = run_json("inspect", "a")
    assert set(job) == FULL_KEYS
    assert (job["args"], job["kwargs"], job["max_attempts"]) == ([1], {"two": 2}, 5)
    assert (job["state"], job["attempts"], job["problems"]) == ("dead", 1, [])
    assert job["error"]["type"] == "ValueError"
    assert "no such address" in job["error"]["traceback"]
    (attempt,) = job["history"]
    assert (attempt["number"], attempt["holder"], attempt["reason"]) == (1, "worker-1", "raised")
    assert attempt["error"] == job["error"]


def test_inspect_a_running_job(driver: InspectableDriver, run_json: RunJson, run: Run) -> None:
    put(driver, "a")
    job = reserve(driver)
    progress = codec.encode([0.25, "a quarter"])
    driver.extend("worker-1", [Renewal("a", job.fence, progress, codec.encode({"row": 7}))], 30.0)
    shown = run_json("inspect", "a")
    assert (shown["fence"], shown["holder"]) == (job.fence, "worker-1")
    assert shown["progress"] == {"fraction": 0.25, "message": "a quarter"}
    assert shown["saved"] == {"row": 7}
    assert "25% a quarter" in run("inspect", "a").stdout


def test_inspect_for_people(driver: InspectableDriver, run: Run) -> None:
    die(driver, "a")
    text = run("inspect", "a").stdout
    assert "dead (raised)" in text
    assert "(1, two=2)" in text
    assert "ValueError: no such address" in text


def test_a_job_with_corrupt_bytes_can_be_looked_at(
    driver: InspectableDriver, run_json: RunJson, run: Run
) -> None:
    put(driver, "a", body=b"\xff\xff")
    job = run_json("inspect", "a")
    assert job["args"] is None
    assert "corrupt" in job["problems"][0]
    assert "corrupt" in run("inspect", "a").stdout


def test_a_missing_job_is_not_found(run: Run) -> None:
    for words in (("inspect", "nope"), ("result", "nope"), ("cancel", "nope")):
        assert "no job" in run(*words, code=3).stderr or "no such job" in run(*words, code=3).stderr


def test_result_prints_the_value(driver: InspectableDriver, run: Run, run_json: RunJson) -> None:
    succeed(driver, "a", {"sum": 3, "raw": b"\x00", "pair": (1, 2)})
    printed = {"sum": 3, "raw": {"base64": "AA=="}, "pair": [1, 2]}
    assert json.loads(run("result", "a").stdout) == printed
    assert run_json("result", "a") == {
        "id": "a",
        "state": "succeeded",
        "reason": "succeeded",
        "result": printed,
        "result_stored": True,
        "error": None,
    }


def test_a_result_of_an_unknown_class_asks_for_the_app(
    driver: InspectableDriver, run: Run, run_json: RunJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.cli import conftest

    succeed(driver, "a", conftest.Shape.ROUND)
    monkeypatch.delattr(conftest, "Shape")
    assert "With -A APP" in run("result", "a", code=78).stderr
    shown = run_json("inspect", "a")
    assert (shown["result"], shown["result_stored"]) == (None, True)
    assert "Shape" in shown["problems"][0]


def test_any_bytes_may_be_asked_for(run_json: RunJson) -> None:
    answer = run_json("cancel", "\udcff\n", "€", code=3)
    assert [job["id"] for job in answer["jobs"]] == ["\udcff\n", "€"]


def test_result_of_a_dead_job_is_its_error(driver: InspectableDriver, run: Run) -> None:
    die(driver, "a")
    result = run("result", "a", code=1)
    assert result.stdout == ""
    assert "is dead (raised)" in result.stderr
    assert "ValueError: no such address" in result.stderr


def test_result_of_an_unfinished_job(driver: InspectableDriver, run_json: RunJson) -> None:
    put(driver, "a")
    assert run_json("result", "a", "--wait", "0.05", code=5)["state"] == "ready"


def test_cancel_says_what_became_of_each_job(
    driver: InspectableDriver, run: Run, run_json: RunJson
) -> None:
    put(driver, "running")
    reserve(driver)
    put(driver, "waiting")
    run("cancel", "running", "waiting")
    assert run_json("cancel", "running", "waiting", "nope", code=4) == {
        "jobs": [
            {"id": "running", "verdict": "requested"},
            {"id": "waiting", "verdict": "finished"},
            {"id": "nope", "verdict": "not_found"},
        ]
    }


def test_job_retry_takes_dead_and_cancelled_jobs(
    driver: InspectableDriver, run: Run, run_json: RunJson
) -> None:
    die(driver, "dead")
    put(driver, "cancelled")
    driver.cancel(["cancelled"])
    run("job", "retry", "dead", "cancelled")
    assert driver.queues()[0].counts[State.READY] == 2
    settle(driver, [Settlement.succeed(j.id, j.fence, None) for j in [reserve(driver)]])
    refused = run("job", "retry", "dead", code=4)
    assert "is not cancelled or dead" in refused.stderr
    assert run_json("job", "retry", "--succeeded", "dead")["jobs"][0]["verdict"] == "requeued"


def test_job_delete(driver: InspectableDriver, run: Run) -> None:
    put(driver, "a")
    reserve(driver)
    put(driver, "b")
    result = run("job", "delete", "a", "b", code=4)
    assert result.stdout == "b: deleted\n"
    assert "a: is running" in result.stderr


def test_dlq_requeue_guards_the_queue(driver: InspectableDriver, run: Run) -> None:
    die(driver, "a", queue="mail")
    assert "is not in queue bulk" in run("dlq", "requeue", "a", "--queue", "bulk", code=4).stderr
    run("dlq", "requeue", "a", "--queue", "mail", "--eta", "2100-01-01T00:00:00Z")
    job = driver.get("a")
    assert job is not None
    assert (job.state, job.due_at, job.attempts) == (State.SCHEDULED, 4102444800.0, 0)


def test_dlq_requeue_all_can_keep_the_attempts(
    driver: InspectableDriver, run_json: RunJson
) -> None:
    for job_id in ("a", "b"):
        die(driver, job_id, queue="mail")
    die(driver, "c")
    die(driver, "d", queue="mail", task="shop.other")
    words = ("--all", "--queue", "mail", "--task", "shop.send", "--keep-attempts")
    assert run_json("dlq", "requeue", *words) == {
        "requeued": 2,
        "key_held": 0,
        "upstream": 0,
    }
    jobs = {job["id"]: job for job in run_json("list")["jobs"]}
    assert {job_id for job_id, job in jobs.items() if job["state"] == "ready"} == {"a", "b"}
    assert jobs["a"]["attempts"] == 1


def test_dlq_requeue_leaves_a_job_whose_key_is_taken(
    driver: InspectableDriver, run: Run, run_json: RunJson
) -> None:
    die(driver, "a", idempotency_key="k", key_until="terminal")
    put(driver, "b", idempotency_key="k")
    assert "idempotency key" in run("dlq", "requeue", "a", code=4).stderr
    assert run_json("dlq", "requeue", "--all") == {
        "requeued": 0,
        "key_held": 1,
        "upstream": 0,
    }


@pytest.mark.parametrize(
    "words",
    [
        ("requeue",),
        ("requeue", "a", "--all"),
        ("requeue", "a", "--task", "t"),
        ("requeue", "a", "--eta", "2100-01-01"),
        ("requeue", "a", "--countdown", "-1"),
        ("requeue", "a", "--countdown", "5", "--eta", "2100-01-01T00:00:00Z"),
        ("list", "--limit", "0"),
    ],
)
def test_dlq_refuses_what_is_unclear(run: Run, words: tuple[str, ...]) -> None:
    run("dlq", *words, code=2)


def test_dlq_purge_asks_first(driver: InspectableDriver, run: Run, run_json: RunJson) -> None:
    die(driver, "a", queue="mail")
    die(driver, "b")
    put(driver, "c")
    run("dlq", "purge", stdin="n\n", code=1)
    assert [job["id"] for job in run_json("dlq", "list")["jobs"]] == ["b", "a"]
    assert "give --yes" in run("dlq", "purge", "--json", stdin="y\n", code=2).stderr
    assert [job["id"] for job in run_json("dlq", "list")["jobs"]] == ["b", "a"]
    assert run_json("dlq", "purge", "--queue", "mail", "--yes") == {
        "purged": 1,
        "in_flow": 0,
    }
    assert run("dlq", "purge", stdin="y\n").stdout.endswith("1 deleted\n")
    assert [job["id"] for job in run_json("list")["jobs"]] == ["c"]


def test_queues_counts_pauses_and_resumes(
    driver: InspectableDriver, run: Run, run_json: RunJson
) -> None:
    put(driver, "a", queue="mail")
    run("queues", "pause", "mail", "bulk")
    mail, bulk = sorted(run_json("queues")["queues"], key=lambda queue: queue["name"] == "bulk")
    assert (mail["name"], mail["paused"], mail["counts"]["ready"]) == ("mail", True, 1)
    assert (bulk["name"], bulk["paused"]) == ("bulk", True)
    assert "mail (paused)" in run("queues").stdout
    assert run_json("queues", "resume", "bulk", "mail") == {"resumed": ["bulk", "mail"]}
    assert [queue["paused"] for queue in run_json("queues")["queues"]] == [False]


def test_queues_refuses_flags_that_it_would_not_use(run: Run) -> None:
    assert "behind 'pause'" in run("queues", "--url", "memory://", "pause", "mail", code=2).stderr
    assert "not a valid name" in run("queues", "pause", "no spaces", code=2).stderr


def test_migrate_has_nothing_to_do_without_a_schema(run: Run, run_json: RunJson) -> None:
    assert run_json("migrate") == {"steps": []}
    assert run("migrate").stdout == "Nothing to do.\n"
    assert run_json("migrate", "--sql") == {"sql": ""}
    run("migrate", "--sql", "--check", code=2)


@pytest.mark.parametrize("command", [("list",), ("dlq", "list"), ("dlq", "purge", "--yes")])
@pytest.mark.parametrize("option", ["--queue", "--task"])
@pytest.mark.parametrize("name", ["", "no name", "\udcff"])
def test_a_filter_that_no_job_can_match_is_refused(
    run: Run, command: tuple[str, ...], option: str, name: str
) -> None:
    assert "is not a valid name" in run(*command, option, name, code=2).stderr
