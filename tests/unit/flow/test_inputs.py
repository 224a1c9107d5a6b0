"""What a job of a flow finds when it starts: also when it is not what it should be."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from taskharbor import FlowResult, TaskFailed, TaskHarbor, chain, defaults, group, testing
from taskharbor.canvas import Canvas
from taskharbor.drivers.base import Capabilities, JobFilter
from taskharbor.errors import ConfigurationError, InvalidJob, StoreUnavailable
from taskharbor.flow.plan import Flow, FlowState, Node, Part
from taskharbor.flow.storing import flows_of, parts
from taskharbor.message import Message, Retention, read_body
from taskharbor.states import Move, Reason, State

app = TaskHarbor("memory://", name="inputs", max_attempts=2)


@app.task
def same(value: Any) -> Any:
    return value


@app.task
def count(values: list[Any]) -> int:
    return len(values)


@app.task
def hand_over(value: Any) -> Canvas[Any]:
    return group(same.s(value), same.s(value))


@pytest.fixture(autouse=True)
def jobs() -> Iterator[testing.Jobs]:
    with testing.memory(app) as jobs:
        yield jobs


def test_a_large_group_is_stored_in_parts_and_read_in_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(defaults, "BATCH", 7)
    result = chain(group(same.s(i) for i in range(50)), group(same.s(), count.s())).delay()
    ran = testing.drain(app)
    assert len(ran) == 50 + 1 + 2 + 1
    assert result.get(timeout=0) == [list(range(50)), 50]


@pytest.mark.parametrize(
    ("options", "days"),
    [({}, 30), ({"keep_dead": 0.0}, 7), ({"keep_dead": 0.0, "keep_cancelled": 5.0}, 1)],
)
def test_a_flow_that_a_job_waits_for_is_kept_as_long_as_the_job_a_day_at_least(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], days: int
) -> None:
    """Without it the job, which may wait for a worker, could only be dead."""
    kept: list[Retention] = []
    enqueue_flow = type(app.driver).enqueue_flow  # type: ignore[attr-defined]

    def note_and_enqueue(driver: Any, part: Part, **given: Any) -> Any:
        kept.append(part.flow.retention)
        return enqueue_flow(driver, part, **given)

    monkeypatch.setattr(type(app.driver), "enqueue_flow", note_and_enqueue)
    declare: Any = app.task(name=f"kept{days}", **options)
    result = declare(lambda: group(same.s(1))).delay()
    testing.drain(app)
    assert result.get(timeout=0) == [1]
    # A job of the flow itself has the default, thirty days when it is dead.
    day = 86_400.0
    assert kept == [Retention(days * day, max(days, 7) * day, 30 * day)]


def test_a_part_has_all_that_its_edges_touch_and_no_more_than_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[Part] = []
    enqueue_flow = type(app.driver).enqueue_flow  # type: ignore[attr-defined]

    def note_and_enqueue(driver: Any, part: Part, **given: Any) -> Any:
        sent.append(part)
        return enqueue_flow(driver, part, **given)

    monkeypatch.setattr(type(app.driver), "enqueue_flow", note_and_enqueue)
    monkeypatch.setattr(defaults, "BATCH", 10)
    chain(group(same.s(i) for i in range(30)), group(same.s(), same.s())).delay()
    seen: set[str] = set()
    for part in sent:
        seen |= {node.message.id for node in part.nodes}
        assert len(part.nodes) <= 10
        assert len(part.edges) <= 10
        assert all(edge.source in seen and edge.target in seen for edge in part.edges)
    assert [part.seal for part in sent] == [False] * (len(sent) - 1) + [True]
    flow = Flow("f", size=1, edges=0)
    whole = list(parts(flow, [Node(Message("a", "t", b""))], [], seal=True))
    assert [(len(part.nodes), part.seal) for part in whole] == [(1, True)]


def test_a_flow_whose_key_is_taken_while_it_is_stored_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(defaults, "BATCH", 7)
    canvas = group(same.s(i) for i in range(20)) | count.s()
    enqueue_flow = type(app.driver).enqueue_flow  # type: ignore[attr-defined]
    stored: list[FlowResult[int]] = []

    def be_late(driver: Any, part: Part, **given: Any) -> Any:
        if part.first == 14 and not stored:
            monkeypatch.setattr(type(driver), "enqueue_flow", enqueue_flow)
            stored.append(canvas.apply_async(idempotency_key="one"))
        return enqueue_flow(driver, part, **given)

    monkeypatch.setattr(type(app.driver), "enqueue_flow", be_late)
    late = canvas.apply_async(idempotency_key="one")
    assert (late.id, late.created, late.same_request) == (stored[0].id, False, True)
    while app.driver.prune(100):
        pass
    assert [flow.id for flow in flows_of(app).list_flows().flows] == [late.id]
    assert len(testing.drain(app)) == 21


def test_a_part_sent_again_finds_its_flow_though_that_is_to_keep_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enqueue_flow = type(app.driver).enqueue_flow  # type: ignore[attr-defined]
    ran: list[int] = []

    @app.task(keep_succeeded=0.0, keep_dead=0.0, keep_cancelled=0.0)
    def once() -> None:
        ran.append(1)

    def lose_the_reply(driver: Any, part: Part, **given: Any) -> Any:
        monkeypatch.setattr(type(driver), "enqueue_flow", enqueue_flow)
        enqueue_flow(driver, part, **given)
        testing.drain(app)
        while app.driver.prune(100):
            pass
        raise StoreUnavailable("the reply was lost")

    monkeypatch.setattr(type(app.driver), "enqueue_flow", lose_the_reply)
    assert chain(once.si(), once.si()).delay().state is FlowState.SUCCEEDED
    testing.drain(app)
    assert len(ran) == 2


def test_a_flow_over_the_limits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "MAX_FLOW_NODES", 10)
    with pytest.raises(InvalidJob, match="at most 10 jobs"):
        group(same.s(i) for i in range(11)).delay()
    monkeypatch.setattr(defaults, "MAX_FLOW_NODES", 100)
    monkeypatch.setattr(defaults, "MAX_FLOW_EDGES", 10)
    with pytest.raises(InvalidJob, match="at most 10 edges"):
        (group(same.s(i) for i in range(11)) | count.s()).delay()
    assert app.driver.list_jobs(JobFilter()).jobs == []


def test_a_predecessor_that_was_put_back_in_line_is_waited_for() -> None:
    result = chain(same.s(1), same.s()).delay()
    first, second = result.children
    (ran, _) = testing.drain(app)
    assert ran.job_id == first.id
    states = frozenset({State.SUCCEEDED})
    app.driver.requeue([second.id, first.id], states=states)
    app.driver.pause("default")
    app.driver.resume("default")
    retried, *rest = testing.drain(app)
    # In the order of their enqueue, the first one runs first; the other way round it would be:
    assert (retried.job_id, rest[0].job_id) == (first.id, second.id)
    app.driver.requeue([first.id], states=states, delay=100)
    app.driver.requeue([second.id], states=states)
    (early,) = testing.drain(app)
    assert (early.settlement.move, early.settlement.reason) == (Move.RETRY, Reason.RAISED)
    assert b"InputNotReady" in (early.settlement.error or b"")


@app.task(max_attempts=1)
def fail(error: str) -> None:
    raise ValueError(error)


@app.task
def shown(values: list[Any]) -> list[str]:
    return [repr(value) if isinstance(value, Exception) else str(value) for value in values]


def test_a_long_list_with_failures_and_lists_in_it_keeps_its_order() -> None:
    members: list[Any] = [same.s(n) for n in range(250)]
    members[3] = chain(same.s("x"), group(same.s(), same.s()))
    for n in (0, 120, 121, 249):
        members[n] = fail.s(f"number {n}")
    result = (group(members).allow_failure() | shown.s()).delay()
    testing.drain(app)
    got = result.get(timeout=0)
    expected = [str(n) for n in range(250)]
    expected[3] = "['x', 'x']"
    for n in (0, 120, 121, 249):
        assert f"number {n}" in got[n]
        expected[n] = got[n]
    assert got == expected


def test_pages_shrink_where_results_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    store: Any = type(app.driver)
    real = store.input_results

    def noted(self: Any, job_id: str, *, after: int, limit: int) -> Any:
        limits.append(limit)
        return real(self, job_id, after=after, limit=limit)

    monkeypatch.setattr(store, "input_results", noted)
    monkeypatch.setattr("taskharbor.flow.inputs._PAGE_BYTES", 150_000)
    small = (group(same.s(n % 7) for n in range(1000)) | count.s()).delay()
    large = (group(same.s("x" * 1000) for _ in range(400)) | count.s()).delay()
    testing.drain(app)
    assert (small.get(timeout=0), large.get(timeout=0)) == (1000, 400)
    assert limits == [100, 900, 100, 149, 149, 2]


def test_results_over_the_limit_in_all_make_the_job_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskharbor.flow.inputs._Reader.__init__.__kwdefaults__", {"limit": 5000})
    result = (group(same.s("x" * 1000) for _ in range(5)) | count.s()).delay()
    testing.drain(app)
    with pytest.raises(TaskFailed, match="over the limit of 5,000 bytes"):
        result.get(timeout=0)


def test_a_store_that_is_away_costs_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    result = chain(same.s(1), same.s()).delay()

    def away(*given: Any, **options: Any) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(type(app.driver), "input_results", away)
        _, ran = testing.drain(app)
    assert ran.settlement.move is Move.SNOOZE
    assert result.state is FlowState.RUNNING


def test_the_soft_limit_counts_from_before_the_inputs_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began: list[int] = []

    @app.task(timeout=0.05, max_attempts=1)
    async def limited(value: int) -> None:
        began.append(value)

    def late(*given: Any, **options: Any) -> Any:
        time.sleep(0.1)
        return results(*given, **options)

    result = chain(same.s(1), limited.s()).delay()
    results = type(app.driver).input_results  # type: ignore[attr-defined]
    monkeypatch.setattr(type(app.driver), "input_results", late)
    decided = testing.drain(app)[-1].settlement
    assert (decided.move, decided.reason) == (Move.DIE, Reason.TIMED_OUT)
    assert (result.state, began) == (FlowState.FAILED, [])


def test_a_plain_job_of_a_flow_is_written_like_any_other() -> None:
    result = chain(same.s(1), same.s(), same.si(2)).delay()
    bodies = [app.driver.get(child.id).body for child in result.children]  # type: ignore[union-attr]
    assert [body[0] for body in bodies] == [1, 2, 1]
    assert [read_body(body).wiring is None for body in bodies] == [True, False, True]


def test_a_list_that_a_job_comes_to_must_fit_its_result(jobs: testing.Jobs) -> None:
    task = app.task(name="small", max_result_bytes=1000)(lambda: hand_over.s("x" * 900))
    try:
        result = chain(task.s(), count.s()).delay()
        jobs.run_all()
        with pytest.raises(TaskFailed, match="over the limit of 1,000"):
            result.get(timeout=0)
    finally:
        del app.tasks["small"]


def test_a_job_hands_over_through_others() -> None:
    def hand_over_again(value: Any) -> Canvas[Any]:
        return hand_over.s(value)

    outer = app.task(name="outer")(hand_over_again)
    try:
        result = chain(outer.s(3), count.s()).delay()
        testing.drain(app)
        assert result.get(timeout=0) == 2
    finally:
        del app.tasks["outer"]


def test_a_flow_that_cannot_be_stored_makes_the_job_dead() -> None:
    wrong = app.task(name="wrong")(lambda: same.s(object()) | same.s())
    try:
        result = wrong.delay()
        (ran,) = testing.drain(app)
        assert ran.settlement.move is Move.DIE
        with pytest.raises(TaskFailed, match="EncodeError"):
            result.get(timeout=0)
    finally:
        del app.tasks["wrong"]


def test_a_store_without_flows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.driver, "capabilities", Capabilities())
    with pytest.raises(ConfigurationError, match="keeps no flows"):
        chain(same.s(1), same.s()).delay()
