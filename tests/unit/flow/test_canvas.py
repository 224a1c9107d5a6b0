"""What flows come to: as Celery documents its canvas, where it does."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest

from taskharbor import (
    AsyncResult,
    FlowResult,
    Graph,
    GroupResult,
    JobCancelled,
    Task,
    TaskFailed,
    TaskHarbor,
    chain,
    chord,
    current_job,
    group,
    testing,
)
from taskharbor.canvas import Canvas
from taskharbor.drivers.flows import FlowDriver, FlowNode
from taskharbor.errors import (
    ConfigurationError,
    InvalidCall,
    InvalidJob,
    NoCurrentJob,
    ResultNotStored,
)
from taskharbor.flow.builder import Group
from taskharbor.flow.drawing import read_drawing
from taskharbor.flow.plan import FlowState
from taskharbor.flow.storing import flows_of
from taskharbor.middleware import Enqueue, EnqueueRequest, Middleware

app = TaskHarbor("memory://", name="canvas", max_attempts=1)
heard: list[tuple[Any, ...]] = []


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task
def minus(x: int, *, y: int) -> int:
    return x - y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def same(value: Any) -> Any:
    return value


@app.task
def shown(value: Any) -> str:
    return type(value).__name__ if not isinstance(value, list) else str(list(map(shown, value)))


@app.task
def fail(*given: Any) -> int:
    raise ValueError("no")


@app.task
def hear(job: Any, error: Exception, traceback: str, *own: Any) -> None:
    heard.append((job.id, job.task, error, traceback, own))


@app.task
def hear_id(job_id: str) -> None:
    heard.append((job_id,))


@app.task
def note(*given: Any) -> None:
    heard.append(given)


@app.task
def spread(count: int) -> Canvas[int]:
    return group(add.s(i, i) for i in range(count)) | total.s()


@app.task(bind=True)
def spread_by_replace(self: Task[..., Any], count: int) -> list[int]:
    self.replace(group(add.s(i, i) for i in range(count)))


@app.task
async def spread_later(count: int) -> int:
    current_job().replace(add.s(count, 1))


@pytest.fixture(autouse=True)
def jobs() -> Iterator[testing.Jobs]:
    heard.clear()
    with testing.memory(app) as jobs:
        yield jobs


def value_of(canvas: Any, *args: Any) -> Any:
    result = canvas.delay(*args)
    _run()
    return result.get(timeout=0)


def _run() -> None:
    testing.drain(app)


@pytest.mark.parametrize(
    ("canvas", "value"),
    [
        (chain(add.s(2, 2), add.s(4), add.s(8)), 16),
        (add.s(2, 2) | add.s(4) | add.s(8), 16),
        (chain(add.s(1, 1), minus.s(y=5)), -3),
        (chain(minus.s(10, y=3), minus.s(y=1)), 6),
        (chain(add.s(1, 1), add.si(5, 5)), 10),
        (group(add.s(i, i) for i in range(4)), [0, 2, 4, 6]),
        (group(add.s(1, 1)), [2]),
        (group(add.s(1, 1), group(add.s(2, 2), group(add.s(3, 3)))), [2, 4, 6]),
        (chord([add.s(2, 2), add.s(4, 4)], total.s()), 12),
        (chord([add.s(2, 2)], total.s()), 4),
        (chord(group(same.s(42) | group(same.s(), same.s())), same.s()), [[42, 42]]),
        (group(add.s(i, i) for i in range(3)) | total.s() | add.s(1), 7),
        (add.s(1, 1) | group(add.s(10), add.s(20)), [12, 22]),
        (add.s(1, 1) | group(add.s(10), add.s(20)) | total.s(), 34),
        (group(same.s(1), same.s(2)) | group(same.s(), total.s()), [[1, 2], 3]),
        (group(same.s(1), same.s(2)) | group(same.s(), total.s()) | same.s(), [[1, 2], 3]),
        (group(chain(add.s(1, 1), add.s(1)), chain(add.s(2, 2), add.s(2))), [3, 6]),
        (chord([chord([add.s(1), add.s(2)], total.s()), add.s(3)], total.s()), 6),
        (chord([add.s(1), add.s(2)], group(total.s(), same.s())), [3, [1, 2]]),
        (group(add.si(1), add.si(2)) | add.si(7), 7),
        (group(same.s(1), same.s(2)) | group(add.si(3), add.si(4)), [3, 4]),
        (add.s(1, 1) | chain(add.s(1), add.s(1)), 4),
        (chain(group(), same.s()), []),
        (chain(add.s(1, 1), group(), same.s()), []),
        (add.s(1) | same.map([1, 2]), [1, 2]),
        (add.starmap([(1, 2), (3, 4)]) | total.s(), 10),
        (add.chunks(zip(range(5), range(5), strict=True), 2), [[0, 2], [4, 6], [8]]),
        (add.s(1, y=2) | shown.s(), "int"),
        (chain(spread.s(4), add.s(100)), 112),
        (chain(spread_by_replace.s(3), total.s()), 6),
        (chain(spread_later.s(3), add.s(1)), 5),
        (chord([spread.s(2), spread_by_replace.s(2)], same.s()), [2, [0, 2]]),
    ],
    ids=str,
)
def test_a_flow_comes_to(canvas: Any, value: Any) -> None:
    assert value_of(canvas) == value


def test_arguments_of_delay_come_before_those_of_the_first_jobs() -> None:
    assert value_of(chain(minus.s(y=1), add.s(1)), 10) == 10
    assert value_of(group(add.s(1), add.s(2)), 10) == [11, 12]
    assert value_of(chord([add.s(1), add.s(2)], total.s()), 10) == 23
    assert value_of(chain(add.si(1, 1), add.s(1)), 10) == 3


def test_a_chain_of_one_is_its_step() -> None:
    assert chain(add.s(1, 2)) == add.s(1, 2)
    assert isinstance(chain(add.s(1, 2)).delay(), AsyncResult)


def test_a_chord_without_body_is_stored_when_it_gets_one() -> None:
    result = chord(add.s(i, i) for i in range(3))(total.s())
    _run()
    assert result.get(timeout=0) == 6


def test_an_empty_group_is_an_empty_list() -> None:
    nothing: Group[int] = group()
    result = app.send(nothing)
    _run()
    assert result.get(timeout=0) == []
    with pytest.raises(ConfigurationError, match=r"belongs to no app; .*app\.send"):
        nothing.delay()
    with pytest.raises(ConfigurationError, match=r"belongs to no app; .*app\.send"):
        Graph().delay()


def test_chunks_of_nothing_are_an_empty_list_of_their_task_s_app() -> None:
    assert value_of(add.chunks([], 3)) == []
    assert value_of(add.chunks([], 3), 1) == []
    assert value_of(add.chunks([], 3).set(queue="mail").allow_failure()) == []
    assert value_of(group(add.chunks([], 3)) | total.s()) == 0


def test_a_group_s_result_has_those_of_its_members() -> None:
    result = group(add.s(i, i) for i in range(5)).delay()
    assert isinstance(result, GroupResult)
    assert not result.ready()
    _run()
    assert [each.get(timeout=0) for each in result] == result.join(timeout=0) == [0, 2, 4, 6, 8]
    assert len(result) == result.completed_count() == 5
    assert result[2].get(timeout=0) == 4
    assert result.successful()
    assert result.progress().fraction == 1.0


# --- failures


def test_a_flow_known_by_its_id_has_the_results_that_its_value_is_made_of() -> None:
    members = group(add.s(1), add.s(2)).delay()
    assert app.flow(members.id).results == members.results == members.children[:2]
    last = chain(add.s(1), add.s(2)).delay()
    assert app.flow(last.id).results == last.results == [last.result]


def test_jobs_that_an_empty_group_waits_for_are_no_members_of_it() -> None:
    result: Any = chain(add.s(1, 1), group()).delay()
    _run()
    assert (result.get(timeout=0), result.join(propagate=False), len(result)) == ([], [], 0)
    assert result.completed_count() == 0


def test_a_failure_is_raised_with_the_job_that_failed() -> None:
    result = chain(add.s(1, 1), fail.s(), add.s(1), add.s(2)).delay()
    _run()
    with pytest.raises(TaskFailed, match="ValueError: no") as raised:
        result.get(timeout=0)
    assert isinstance(raised.value, ValueError)
    assert raised.value.job_id == result.children[1].id
    assert result.state is FlowState.FAILED
    assert result.progress().by_state == {"succeeded": 1, "dead": 1, "cancelled": 2}


def test_a_failure_deep_before_a_chord_is_found() -> None:
    result = chord([add.s(1), chain(fail.s(), add.s(1))], total.s()).delay()
    _run()
    with pytest.raises(TaskFailed, match="ValueError: no"):
        result.get(timeout=0)


@pytest.mark.parametrize(
    "canvas",
    [
        chain(add.s(1), fail.s(), add.s(1)).on_error(hear.s("own")),
        chain(add.s(1), fail.s().on_error(hear.s("own")), add.s(1)),
        chord([add.s(1), fail.s()], total.s().on_error(hear.s("own"))),
        chord([add.s(1), fail.s() | add.s(1)], total.s()).on_error(hear.s("own")),
        group(add.s(1), fail.s()).on_error(hear.s("own")),
        group(fail.s(), fail.s(), fail.s()).on_error(hear.s("own")),
    ],
    ids=str,
)
def test_an_error_callback_is_called_once_with_job_error_and_traceback(canvas: Any) -> None:
    result = canvas.delay()
    _run()
    ((job_id, task, error, traceback, own),) = heard
    assert task == fail.name
    assert job_id in {child.id for child in result.children}
    assert isinstance(error, TaskFailed)
    assert "ValueError: no" in traceback
    assert own == ("own",)
    assert result.state is FlowState.FAILED


def test_an_error_callback_with_one_parameter_gets_the_id() -> None:
    result = chain(fail.s(), add.s(1)).on_error(hear_id.s()).delay()
    _run()
    assert heard == [(result.children[0].id,)]


def test_an_immutable_error_callback_gets_nothing_and_may_be_a_chain() -> None:
    chain(fail.s(), add.s(1)).on_error(chain(same.si("a"), note.s())).delay()
    _run()
    assert heard == [("a",)]


def test_an_error_callback_of_what_succeeds_does_not_run_and_does_not_fail_the_flow() -> None:
    result = chain(add.s(1), add.s(1)).on_error(hear.s()).delay()
    _run()
    assert (heard, result.state, result.get(timeout=0)) == ([], FlowState.SUCCEEDED, 2)


@pytest.mark.parametrize("nothing", [group(), group(group(), group()), Graph()])
def test_an_error_callback_that_begins_with_nothing_waits_for_a_death(nothing: Canvas[Any]) -> None:
    errback = nothing | note.s()
    kept = chain(add.s(1), add.s(1)).on_error(errback).delay()
    _run()
    assert (heard, kept.state) == ([], FlowState.SUCCEEDED)
    chain(add.s(1), fail.s()).on_error(errback).delay()
    _run()
    assert heard == [([],)]


def test_a_failure_that_is_allowed_is_a_value() -> None:
    assert value_of(chain(fail.s().allow_failure(), shown.s())) == "TaskFailed[ValueError]"
    value = value_of(group(add.s(1), fail.s(), add.s(2)).allow_failure() | shown.s())
    assert value == "['int', 'TaskFailed[ValueError]', 'int']"


def test_a_chain_that_may_fail_gives_the_error_of_the_job_that_failed() -> None:
    result = group(add.s(1), chain(fail.s(), add.s(1)).allow_failure()).delay()
    _run()
    value: list[Any] = result.get(timeout=0)
    assert value[0] == 1
    assert isinstance(value[1], ValueError)
    assert result.state is FlowState.SUCCEEDED
    assert [type(each).__name__ for each in result.join(propagate=False)] == [
        "int",
        "TaskFailed[ValueError]",
    ]


def test_a_callback_gets_the_result_and_is_not_waited_for() -> None:
    result = chain(add.s(1, 1).link(note.s()), add.s(1)).delay()
    _run()
    assert result.get(timeout=0) == 3
    assert heard == [(2,)]


def test_a_call_with_callbacks_has_a_result_of_its_own() -> None:
    result = add.s(1, 1).link(note.s()).on_error(hear.s()).delay()
    _run()
    assert isinstance(result, AsyncResult)
    assert (result.get(timeout=0), heard) == (2, [(2,)])
    with pytest.raises(InvalidCall, match="callbacks"):
        app.enqueue_many([add.s(1).link(note.s())])


def test_a_job_whose_flow_failed_is_dead_of_the_same() -> None:
    @app.task(name="hand_over")
    def hand_over() -> Canvas[int]:
        return chain(add.s(1), fail.s())

    try:
        result = chain(hand_over.s(), add.s(1)).delay()
        _run()
        with pytest.raises(ValueError, match="no") as raised:
            result.get(timeout=0)
        assert raised.value.job_id == result.children[0].id  # type: ignore[attr-defined]
        assert result.children[0].info().attempt == 1
    finally:
        del app.tasks["hand_over"]


# --- steering


def test_a_failed_flow_is_retried_where_it_failed(jobs: testing.Jobs) -> None:
    broken = [True]

    @app.task(name="mended")
    def mended(x: int) -> int:
        if broken[0]:
            raise ValueError("broken")
        return x

    @app.task(name="outer")
    def outer() -> Canvas[int]:
        return chain(add.s(1), mended.s(), add.s(1))

    try:
        result = chord([outer.s(), add.s(5)], total.s()).delay()
        _run()
        assert result.failed()
        broken[0] = False
        assert result.retry_failed() == 2
        _run()
        assert result.get(timeout=0) == 7
        assert result.state is FlowState.SUCCEEDED
    finally:
        del app.tasks["mended"], app.tasks["outer"]


def test_a_cancelled_flow_can_be_retried() -> None:
    result = chain(add.s(1), add.s(1)).delay()
    result.cancel()
    _run()
    assert result.state is FlowState.CANCELLED
    with pytest.raises(JobCancelled):
        result.get(timeout=0)
    assert result.retry_failed() == 1
    _run()
    assert result.get(timeout=0) == 2


def test_a_flow_that_takes_too_long_is_cancelled(jobs: testing.Jobs) -> None:
    result = chain(add.s(1).set(countdown=100), add.s(1)).apply_async(expires=10)
    jobs.advance(11)
    jobs.run_all()
    assert result.state is FlowState.CANCELLED


def test_a_key_belongs_to_the_flow() -> None:
    first = chain(add.s(1), add.s(1)).apply_async(idempotency_key="k")
    again = chain(add.s(1), add.s(1)).apply_async(idempotency_key="k")
    other = chain(add.s(1), add.s(2)).apply_async(idempotency_key="k")
    assert (first.created, again.created, other.created) == (True, False, False)
    assert (again.same_request, other.same_request) == (True, False)
    _run()
    assert first.id == again.id == other.id
    assert other.get(timeout=0) == 2
    with pytest.raises(InvalidJob, match="idempotency_key"):
        chain(add.s(1).set(idempotency_key="x"), add.s(1)).delay()
    with pytest.raises(InvalidJob, match="job_id"):
        chain(add.s(1).set(job_id="x"), add.s(1)).delay()


def test_options_are_for_all_jobs_and_a_countdown_for_the_first(jobs: testing.Jobs) -> None:
    result = chain(add.s(1), add.s(1)).apply_async(queue="mail", priority=3, countdown=60)
    assert testing.drain(app) == []
    assert {child.info().queue for child in result.children} == {"mail"}
    ran = jobs.advance(60)
    assert len(ran) == 2
    assert {child.info().priority for child in result.children} == {3}


def test_a_flow_is_forgotten_as_a_whole() -> None:
    result = chain(add.s(1), add.s(1)).delay()
    assert not result.forget()
    _run()
    assert result.forget()


def test_what_goes_in_is_checked_before_anything_is_stored() -> None:
    other = TaskHarbor("memory://", name="other")

    @other.task(name="foreign")
    def foreign(x: int) -> int:
        return x

    quiet = app.task(name="quiet", store_result=False)(lambda: None)
    try:
        refused: list[tuple[Any, type[Exception], str]] = [
            (chain(add.s(1), foreign.s()), ConfigurationError, "no task 'foreign'"),
            (chain(add.s(1), add.s(1, 2)), InvalidCall, "too many positional"),
            (chain(add.s(1), same.si()), InvalidCall, "missing"),
            (chain(quiet.s(), same.s()), InvalidJob, "store_result=False"),
            (chain(add.s(1)).on_error(total.si()), InvalidCall, "missing"),
        ]
        for canvas, error, words in refused:
            with pytest.raises(error, match=words):
                canvas.delay()
        assert app.driver.queues() == []
    finally:
        del app.tasks["quiet"]
    with pytest.raises(InvalidCall, match="not of 7"):
        group(7)  # type: ignore[call-overload]
    with pytest.raises(InvalidCall, match="at least one step"):
        chain()  # type: ignore[call-overload]
    with pytest.raises(InvalidCall, match=r"^5 is not the arguments of a call of .*\.add;"):
        add.starmap([(1, 2), 5])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "build",
    [
        lambda part: chain(add.s(1), part),
        lambda part: add.s(1) | part,
        lambda part: part | add.s(1),
        lambda part: part | group(add.s(1), add.s(2)),
        lambda part: Graph("parts").add("a", part),
        lambda part: group(add.s(1), add.s(2)) | part,
        lambda part: add.s(1).link(part),
        lambda part: add.s(1).on_error(part),
        lambda part: group(add.s(1)).link_error(part),
        lambda part: chord([add.s(1)], part),
        lambda part: chord([add.s(1)], body=part),
        chord([add.s(1)]),
    ],
)
@pytest.mark.parametrize("part", [add, 1, "add", None], ids=str)
def test_what_is_no_call_written_down_is_refused_at_once(build: Any, part: Any) -> None:
    with pytest.raises(TypeError, match=r"write a call down with task\.s\(") as raised:
        build(part)
    assert isinstance(raised.value, InvalidCall)
    assert f"not of {part!r}" in str(raised.value)


def test_a_mapped_task_that_returns_a_flow_is_dead() -> None:
    result = spread.map([2]).delay()
    _run()
    with pytest.raises(TaskFailed, match="EncodeError"):
        result.get(timeout=0)


def test_a_missing_result_is_said_when_a_job_takes_it_or_the_list_is_read() -> None:
    quiet = app.task(name="quiet", store_result=False)(lambda: None)
    try:
        result = group(quiet.s(), add.s(1)).delay()
        _run()
        assert result.state is FlowState.SUCCEEDED
        with pytest.raises(ResultNotStored):
            result.get(timeout=0)
        with pytest.raises(InvalidJob, match="store_result=False"):
            (group(quiet.s(), add.s(1)) | same.s()).delay()
    finally:
        del app.tasks["quiet"]


def test_middleware_sees_the_calls_of_a_flow_and_can_change_them() -> None:
    class Header(Middleware):
        def around_enqueue(
            self, requests: list[EnqueueRequest], enqueue: Enqueue
        ) -> list[AsyncResult[Any]]:
            for request in requests:
                request.headers["trace"] = "7"
            return enqueue(requests)

    mine = TaskHarbor("memory://", name="mine", middleware=[Header()])
    traced = mine.task(name="traced")(lambda *given: current_job().headers["trace"])
    with testing.memory(mine):
        result = (group(traced.s(), traced.s()) | traced.s()).delay()
        testing.drain(mine)
        assert result.get(timeout=0) == "7"


def test_middleware_and_signals_see_the_flow_that_a_job_hands_its_work_to() -> None:
    class PassOn(Middleware):
        def around_enqueue(
            self, requests: list[EnqueueRequest], enqueue: Enqueue
        ) -> list[AsyncResult[Any]]:
            with suppress(NoCurrentJob):
                for request in requests:
                    request.headers["trace"] = current_job().headers["trace"]
            return enqueue(requests)

    mine = TaskHarbor("memory://", name="passing", middleware=[PassOn()])
    trace: Any = mine.task(name="trace")(lambda *given: current_job().headers["trace"])

    @mine.task(name="hand")
    def hand() -> Any:
        return group(trace.s(), trace.s()) | trace.s()

    @mine.task(name="ahand")
    async def ahand() -> Any:
        return trace.s() | hand.si()

    told: list[str] = []
    mine.signals.enqueued.connect(lambda event: told.append(event.task))
    with testing.memory(mine):
        for task in (hand, ahand):
            result = task.using(headers={"trace": "7"}).delay()
            testing.drain(mine)
            assert result.get(timeout=0) == "7"
    assert Counter(told) == {"hand": 2, "ahand": 1, "trace": 3 + 1 + 3}


def test_flows_run_at_once_inline() -> None:
    with testing.inline(app):
        assert chain(add.s(1), group(add.s(1), add.s(2)), total.s()).delay().get(timeout=0) == 5
    with testing.inline(app, raise_errors=True), pytest.raises(TaskFailed):
        chain(add.s(1), fail.s()).delay()


# --- graphs


def test_a_graph_gives_values_by_name() -> None:
    graph = Graph("bill")
    graph.add("bill", minus.s(), inputs={"x": "sum", "y": "discount"}, after=["noted"])
    graph.add("price", add.s(10))
    graph.add("tax", add.s(2))
    graph.add("sum", total.s(), inputs=[["price", "tax"]])
    graph.add("discount", chain(add.s(1), add.s(1)))
    graph.add("noted", note.si("x"), after=["sum", "price"])
    result = graph.delay()
    _run()
    assert result.get(timeout=0) == 10
    assert heard == [("x",)]
    assert result.info().name == "bill"
    assert {node.label for node in result.nodes()} >= {"bill", "price", "tax", "sum", "noted"}


def test_a_graph_with_several_ends_is_a_list_of_theirs() -> None:
    graph = Graph()
    graph.add("a", add.s(1))
    graph.add("b", add.s(10), inputs=["a"])
    graph.add("c", group(add.s(20), add.s(30)), inputs=["a"])
    assert value_of(graph) == [11, [21, 31]]
    assert value_of(add.s(5) | graph) == [16, [26, 36]]
    graph.result = "b"
    assert value_of(graph) == 11


def test_a_graph_in_a_circle_is_refused() -> None:
    graph = Graph("round")
    graph.add("a", add.s(1), inputs=["c"])
    graph.add("b", add.s(1), inputs=["a"])
    graph.add("c", add.s(1), inputs=["b"])
    with pytest.raises(InvalidJob, match="goes in a circle: "):
        graph.delay()
    graph = Graph("hole")
    graph.add("a", add.s(1), after=["nowhere"])
    with pytest.raises(InvalidJob, match="'nowhere'"):
        graph.delay()
    with pytest.raises(InvalidCall, match="already"):
        graph.add("a", add.s(1))


@pytest.mark.parametrize("name", [5, "line\nline", "nul\0", "half \udc80"])
def test_a_name_that_a_store_could_not_hold_is_refused(name: Any) -> None:
    with pytest.raises(InvalidCall, match="use a str of printable characters"):
        Graph("names").add(name, add.s(1))
    with pytest.raises(InvalidCall, match="use a str of printable characters"):
        group(add.s(1)).apply_async(name=name)


def test_the_names_of_a_flow_and_its_nodes_have_at_most_255_characters() -> None:
    result = group(add.s(1)).apply_async(name="n" * 255)
    assert result.info().name == "n" * 255
    with pytest.raises(InvalidCall, match="has 256 characters; use at most 255"):
        group(add.s(1)).apply_async(name="n" * 256)
    graph = Graph("n" * 256)
    graph.add("a" * 255, add.s(1))
    with pytest.raises(InvalidCall, match="has 256 characters; use at most 255"):
        graph.delay()
    with pytest.raises(InvalidCall, match="has 256 characters; use at most 255"):
        graph.add("a" * 256, add.s(1))


@pytest.mark.parametrize("result", [["a"], 1, b"a"])
def test_a_graph_s_result_is_the_name_of_one_node(result: Any) -> None:
    with pytest.raises(InvalidCall, match="use the name of one node"):
        Graph("results", result=result)


@pytest.mark.parametrize(
    "waits",
    [{"inputs": [[["a"]]]}, {"inputs": [1]}, {"inputs": {"x": [["a"]]}}, {"after": [["a"]]}],
    ids=str,
)
def test_a_node_waits_for_names_only(waits: Any) -> None:
    graph = Graph("names")
    graph.add("a", add.s(1))
    with pytest.raises(InvalidCall, match="use the name of a node"):
        graph.add("b", add.s(), **waits)
    assert list(graph.nodes) == ["a"]


def test_a_label_cannot_break_out_of_its_place_in_mermaid() -> None:
    graph = Graph("labels")
    graph.add('"a" \\n', add.s(1))
    graph.add("b", add.s(), inputs=['"a" \\n'])
    drawing = graph.delay().graph()
    assert f'["○ #quot;a#quot; #92;n: {add.name}"]' in drawing.mermaid()
    first, *others = drawing.nodes
    drawing = replace(drawing, nodes=(first._replace(label="two\nlines"), *others))
    assert f'["○ two<br/>lines: {add.name}"]' in drawing.mermaid()
    inner = first._replace(label="", task="shop.make.<locals>.a&b")
    drawing = replace(drawing, nodes=(inner, *others))
    assert '["○ shop.make.#lt;locals#gt;.a#amp;b"]' in drawing.mermaid()


def test_a_tree_shows_what_comes_after_what_and_a_chain_takes_no_room_to_the_right() -> None:
    fork = group(add.s(2) | minus.s(y=1), total.s())
    first = group(add.s(i) for i in range(7)) | total.s().on_error(shown.si("oops"))
    canvas = group(first, chain(same.s([1]), same.s(), fork, *[same.s()] * 300))
    tree = canvas.delay().graph().tree().splitlines()
    words = [line.split(" [")[0].replace(f"{__name__}.", "") for line in tree]
    assert words[:10] == [
        "○ add × 7",
        "↓ · total",
        "↓ · shown",
        "○ same",
        "↓ · same",
        "├─ · add",
        "│  ↓ · minus",
        "└─ · total",
        "   ↓ · same",
        "   ↓ · same",
    ]
    assert words[10:] == ["   ↓ · same"] * 298 + ["   ↓ · taskharbor.join"]


def test_a_flow_whose_jobs_are_not_all_there_is_drawn() -> None:
    """It is being stored, or pruned: its edges are read after its nodes."""
    result = chain(add.s(1), add.s(1), add.s(1)).delay()
    driver = flows_of(app)
    _, *others = driver.flow_nodes(result.id)

    class Partly:
        def __getattr__(self, name: str) -> Any:
            return getattr(driver, name)

        def flow_nodes(self, flow_id: str, *, after: int, limit: int) -> list[FlowNode]:
            return [node for node in others if node.number > after]

    drawing = read_drawing(cast("FlowDriver", Partly()), result.id)
    assert len(drawing.edges) == 1
    assert drawing.tree().count(add.name) == 2


def test_a_flow_result_pickles() -> None:
    import pickle

    result = chain(add.s(1), add.s(1)).delay()
    again: FlowResult[int] = pickle.loads(pickle.dumps(result))
    _run()
    assert again == result
    assert again.get(timeout=0) == 2


async def _waited() -> tuple[int, list[int]]:
    first = await chain(add.s(1), add.s(1)).adelay()
    second = await group(add.s(1), add.s(2)).adelay()
    _run()
    return await first.aget(5), await second.aget(5)


def test_flows_from_async_code() -> None:
    import asyncio

    assert asyncio.run(_waited()) == (2, [1, 2])


def test_habits_from_elsewhere_are_told_what_to_write_here() -> None:
    with pytest.raises(ConfigurationError, match=r"task\.s\(\.\.\.\)\.link\(callback\)"):
        cast(Any, add).apply_async((1,), link=same.s())
    with pytest.raises(ConfigurationError, match=r"\.link_error\(callback\)"):
        cast(Any, chain(add.s(1), add.s(1))).apply_async(link_error=same.s())
    with pytest.raises(InvalidCall, match=r"not of 'shop\.add'"):
        chain(cast(Any, "shop.add"))
