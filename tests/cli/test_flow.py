"""``taskharbor flow``: pages of flows, pictures of one, and what operators do to them."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskharbor import TaskHarbor, chain, chord, group, testing
from taskharbor.cli.flow_view import fitted
from taskharbor.drivers.base import InspectableDriver
from taskharbor.flow.result import FlowResult
from tests.cli.conftest import Run

RunJson = Callable[..., Any]


@pytest.fixture
def app(url: str, driver: InspectableDriver) -> Iterator[TaskHarbor]:
    app = TaskHarbor(url, name="flows-on-the-command-line", max_attempts=1)
    yield app
    app.close()


@pytest.fixture
def opened() -> list[bool]:
    """Empty as long as the book is closed."""
    return []


@pytest.fixture
def stored(app: TaskHarbor, opened: list[bool]) -> FlowResult[Any]:
    """A chord of many, and one job more, which dies while the book is closed."""

    @app.task(name="shop.price")
    def price(item: int) -> int:
        return item

    @app.task(name="shop.sum")
    def total(prices: list[int]) -> int:
        return sum(prices)

    @app.task(name="shop.tell")
    def tell(job: Any, error: Exception, traceback: str) -> None: ...

    @app.task(name="shop.book")
    def book(amount: int) -> int:
        if not opened:
            raise ValueError("the book is closed")
        return amount

    prices = group(price.s(i) for i in range(10))
    canvas = chain(chord(prices, total.s()), book.s()).on_error(tell.s())
    result: FlowResult[Any] = canvas.apply_async(name="order 7")
    return result


def test_a_flow_is_drawn_with_alike_jobs_folded(run: Run, stored: FlowResult[Any]) -> None:
    tree = run("flow", "inspect", stored.id).stdout
    assert f"{stored.id} order 7" in tree
    assert "0/13" in tree
    assert "shop.price × 10 [10 ready]" in tree
    assert "· shop.sum [blocked]" in tree
    assert "shop.tell [blocked] (and after 2 more) (on error)" in tree
    assert len(tree.strip().splitlines()) == 6


def test_a_flow_is_drawn_for_mermaid_and_graphviz(run: Run, stored: FlowResult[Any]) -> None:
    mermaid = run("flow", "inspect", stored.id, "--mermaid").stdout
    assert mermaid.startswith("flowchart TD\n")
    assert 'n0["○ shop.price × 10"]:::ready' in mermaid
    assert "n0 --> n10" in mermaid
    assert "n11 -. error .-> n12" in mermaid
    dot = run("flow", "inspect", stored.id, "--dot").stdout
    assert dot.startswith("digraph flow {")
    assert "n10 -> n11;" in dot
    assert 'n11 -> n12 [style=dashed, label="error"];' in dot


def test_json_has_all_nodes_and_edges(run_json: RunJson, stored: FlowResult[Any]) -> None:
    shape = run_json("flow", "inspect", stored.id)
    assert (shape["id"], shape["state"], shape["size"]) == (stored.id, "running", 13)
    assert len(shape["nodes"]) == 13
    assert {edge["kind"] for edge in shape["edges"]} == {"success", "death"}
    (listed,) = run_json("flow", "list")["flows"]
    assert listed["name"] == "order 7"


def test_flows_are_listed_page_by_page(run: Run, run_json: RunJson, app: TaskHarbor) -> None:
    assert "There are no flows." in run("flow", "list").stdout
    step = app.task(name="step")(lambda *given: None)
    ids = [chain(step.s(), step.s()).delay().id for _ in range(3)]
    first = run_json("flow", "list", "--limit", "2")
    rest = run_json("flow", "list", "--cursor", first["cursor"])
    assert [each["id"] for each in first["flows"] + rest["flows"]] == ids[::-1]
    assert rest["cursor"] is None


def test_a_failed_flow_is_retried(
    run: Run,
    run_json: RunJson,
    app: TaskHarbor,
    stored: FlowResult[Any],
    opened: list[bool],
) -> None:
    testing.drain(app)
    assert "✗ shop.book [dead]" in run("flow", "inspect", stored.id).stdout
    run("flow", "watch", stored.id, code=1)
    opened.append(True)
    assert run_json("flow", "retry", stored.id) == {"id": stored.id, "requeued": 1}
    testing.drain(app)
    assert stored.get(timeout=0) == 45
    assert "succeeded" in run("flow", "watch", stored.id).stdout
    run("flow", "retry", stored.id, code=4)
    run("flow", "cancel", stored.id, code=4)


def test_a_flow_is_cancelled(run: Run, app: TaskHarbor, stored: FlowResult[Any]) -> None:
    run("flow", "cancel", stored.id)
    testing.drain(app)
    assert stored.state == "cancelled"
    assert "– shop.price × 10 [10 cancelled]" in run("flow", "inspect", stored.id).stdout


def test_a_flow_is_deleted_once_it_has_ended(
    run: Run, run_json: RunJson, app: TaskHarbor, stored: FlowResult[Any]
) -> None:
    assert "cancel it first" in run("flow", "delete", stored.id, code=4).stderr
    testing.drain(app)
    assert run_json("flow", "delete", stored.id) == {"id": stored.id, "verdict": "deleted"}
    while app.driver.prune(1000):
        pass
    assert run_json("list")["jobs"] == run_json("flow", "list")["flows"] == []


def test_dead_jobs_of_a_flow_are_said_to_stay(
    run: Run, run_json: RunJson, app: TaskHarbor, stored: FlowResult[Any]
) -> None:
    testing.drain(app)
    assert run_json("dlq", "purge", "--yes") == {"purged": 0, "in_flow": 1}
    assert "flow delete" in run("dlq", "purge", "--yes").stderr
    (dead,) = run_json("dlq", "list")["jobs"]
    assert re.search(f"^flow +{stored.id}$", run("inspect", dead["id"]).stdout, re.MULTILINE)


def test_the_result_of_a_group_is_the_list_of_its_members_results(
    run: Run, run_json: RunJson, app: TaskHarbor
) -> None:
    double = app.task(name="shop.double")(lambda x: 2 * x)
    result = group(double.s(x) for x in range(3)).delay()
    testing.drain(app)
    assert run_json("result", result.result.id)["result"] == [0, 2, 4]


def test_a_flow_that_is_not_there_is_said_to_be_so(run: Run) -> None:
    for words in (("inspect",), ("cancel",), ("retry",), ("watch",), ("delete",)):
        result = run("flow", *words, "nothing", code=3)
        assert "there is no flow nothing" in result.stderr


@pytest.mark.parametrize("command", ["inspect", "watch", "cancel", "retry", "delete"])
def test_the_id_of_a_job_is_said_to_be_one(
    run: Run, stored: FlowResult[Any], app: TaskHarbor, command: str
) -> None:
    member = stored.children[0].id
    said = run("flow", command, member, code=3)
    assert f"{member} is no flow but a job, of flow {stored.id}" in said.stderr
    alone = app.tasks["shop.price"].delay(1).id
    assert f"{alone} is no flow but a job, of no flow" in run("flow", command, alone, code=3).stderr


@pytest.mark.parametrize("form", ["--mermaid", "--dot"])
def test_no_other_picture_than_a_tree_follows_a_flow(
    run: Run, stored: FlowResult[Any], form: str
) -> None:
    said = run("flow", "inspect", stored.id, "--follow", form, code=2)
    assert f"leave out {form}" in said.stderr


def test_a_picture_that_follows_a_flow_fits_the_terminal() -> None:
    picture = "\n".join(f"{number} {'x' * 100}" for number in range(30))
    lines = fitted(picture, 20, 10).splitlines()
    assert len(lines) == 9  # and the cursor's
    assert max(map(len, lines)) == 19
    assert lines[-1] == "… and 22 more lines"
    assert fitted("one\ntwo", 20, 10) == "one\ntwo"


def test_a_terminal_of_another_encoding_gets_what_it_can_show(
    stored: FlowResult[Any], url: str
) -> None:
    command = [sys.executable, "-m", "taskharbor", "flow", "inspect", stored.id, "--url", url]
    said = subprocess.run(
        command,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    text = said.stdout.decode("latin-1")
    assert "? shop.price × 10 [10 ready]" in text
