"""Canvases as nobody would write them, compared with what they mean in plain Python."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskharbor import TaskFailed, TaskHarbor, chain, chord, group, testing
from taskharbor.canvas import Canvas
from taskharbor.flow.plan import FlowState

app = TaskHarbor("memory://", name="generated", max_attempts=1)


@app.task
def tag(*given: Any, name: int) -> list[Any]:
    """Says what it was called with."""
    return [name, *given]


@app.task
def fail(*given: Any, name: int) -> None:
    raise ValueError(str(name))


class Failed(Exception):
    """What plain Python raises where a job dies."""


class Case(NamedTuple):
    """A part of a flow, and what it means: ``evaluate(*values before)``, which raises Failed.
    ``flat``: its value is a list that a group around it takes apart."""

    canvas: Canvas[Any]
    evaluate: Callable[..., Any]
    flat: bool = False


def job(name: int, immutable: bool, own: int | None, dies: bool) -> Case:
    task = fail if dies else tag
    args = () if own is None else (own,)
    canvas = (task.si if immutable else task.s)(*args, name=name)

    def evaluate(*given: Any) -> Any:
        if dies:
            raise Failed
        return [name, *(() if immutable else given), *args]

    return Case(canvas, evaluate)


def in_chain(parts: list[Case]) -> Case:
    def evaluate(*given: Any) -> Any:
        for part in parts:
            given = (part.evaluate(*given),)
        return given[0]

    flat = parts[0].flat if len(parts) == 1 else False
    return Case(chain(*(part.canvas for part in parts)), evaluate, flat)


def in_group(parts: list[Case]) -> Case:
    def evaluate(*given: Any) -> Any:
        values: list[Any] = []
        for part in parts:
            value = part.evaluate(*given)
            values += value if part.flat else [value]
        return values

    return Case(group([part.canvas for part in parts]), evaluate, True)


def in_chord(parts: list[Case], body: Case) -> Case:
    header = in_group(parts)
    canvas = chord([part.canvas for part in parts], body.canvas)
    return Case(canvas, lambda *given: body.evaluate(header.evaluate(*given)))


def cases(*, dies: st.SearchStrategy[bool]) -> st.SearchStrategy[Case]:
    names = st.integers(0, 99)
    jobs = st.builds(job, names, st.booleans(), st.none() | names, dies)
    return st.recursive(
        jobs,
        lambda parts: st.one_of(
            st.lists(parts, min_size=1, max_size=4).map(in_chain),
            st.lists(parts, max_size=4).map(in_group),
            st.builds(in_chord, st.lists(parts, max_size=4), parts),
        ),
        max_leaves=12,
    )


def run(canvas: Canvas[Any], *args: Any) -> Any:
    """The result of the flow, after everything has run. An empty one has no app of its own."""
    result = app.send(canvas.clone(*args))  # type: ignore[call-overload]
    testing.drain(app)
    return result


@pytest.fixture(autouse=True, scope="module")
def _store() -> Iterator[None]:
    with testing.memory(app):
        yield


@settings(max_examples=150)
@given(case=cases(dies=st.just(False)), before=st.none() | st.integers(0, 9))
def test_a_canvas_comes_to_what_plain_python_does(case: Case, before: int | None) -> None:
    given = () if before is None else (before,)
    result = run(case.canvas, *given)
    assert result.get(timeout=0) == case.evaluate(*given)
    if hasattr(result, "progress"):
        assert result.state is FlowState.SUCCEEDED
        assert result.progress().fraction == 1.0


@settings(max_examples=100)
@given(case=cases(dies=st.integers(0, 9).map(lambda number: number == 0)))
def test_a_canvas_fails_when_plain_python_does(case: Case) -> None:
    result = run(case.canvas)
    try:
        value = case.evaluate()
    except Failed:
        with pytest.raises(TaskFailed):
            result.get(timeout=0)
        if hasattr(result, "progress"):
            assert result.state is FlowState.FAILED
            assert result.ready()
    else:
        assert result.get(timeout=0) == value


@settings(max_examples=50)
@given(case=cases(dies=st.just(False)))
def test_a_task_that_returns_a_canvas_comes_to_the_same(case: Case) -> None:
    hand_over = app.task(name="hand_over")(partial(_return, case.canvas))
    try:
        result = run(chain(hand_over.s(), tag.s(name=-1)))
        assert result.get(timeout=0) == [-1, case.evaluate()]
    finally:
        del app.tasks["hand_over"]


def _return(canvas: Canvas[Any]) -> Canvas[Any]:
    return canvas
