"""Failures travel as data, whatever the exception's class does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor.codec import Failure, clean_text, encode
from taskharbor.errors import DecodeError

TEXTS = st.text(st.characters(exclude_categories=()))


def raised(error: BaseException) -> BaseException:
    """``error`` with a traceback."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def clean(text: str) -> bool:
    text.encode()
    return "\0" not in text


def test_a_failure_has_type_module_message_and_traceback() -> None:
    failure = Failure.of(raised(KeyError("k")))
    assert (failure.type, failure.module, failure.message) == ("KeyError", "builtins", "'k'")
    assert failure.traceback.startswith("Traceback (most recent call last):\n")
    assert failure.traceback.endswith("KeyError: 'k'\n")
    assert "raise error" in failure.traceback
    assert failure.cause is None


def test_a_nested_class_is_named_in_full() -> None:
    class Broken(Exception):
        pass

    assert Failure.of(Broken()).type == f"{Broken.__qualname__}"
    assert Failure.of(Broken()).module == __name__


def test_the_chain_of_causes_is_kept_nearest_first() -> None:
    def chain() -> None:
        try:
            try:
                raise ValueError("first")
            except ValueError as error:
                raise KeyError("second") from error
        except KeyError:
            raise RuntimeError("third")  # noqa: B904 - the implicit chain counts too

    with pytest.raises(RuntimeError) as caught:
        chain()
    failure = Failure.of(caught.value)
    assert failure.cause is not None
    assert failure.cause.cause is not None
    assert [failure.type, failure.cause.type, failure.cause.cause.type] == [
        "RuntimeError",
        "KeyError",
        "ValueError",
    ]
    assert failure.cause.traceback == ""
    assert "direct cause" in failure.traceback
    assert "During handling" in failure.traceback
    assert failure.traceback.index("first") < failure.traceback.index("third")


def test_a_cause_that_is_falsy_is_a_cause() -> None:
    error = ValueError()
    error.__cause__ = Empty()
    cause = Failure.of(error).cause
    assert cause is not None
    assert cause.type == "Empty"


def test_a_suppressed_context_is_no_cause() -> None:
    def suppress() -> None:
        try:
            raise ValueError("hidden")
        except ValueError:
            raise KeyError("seen") from None

    with pytest.raises(KeyError) as caught:
        suppress()
    assert Failure.of(caught.value).cause is None


def test_a_cycle_of_causes_ends() -> None:
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first
    failure = Failure.of(raised(first))
    assert failure.cause is not None
    assert failure.cause.type == "KeyError"
    assert failure.cause.cause is None
    itself = ValueError()
    itself.__cause__ = itself
    assert Failure.of(itself).cause is None


def test_a_chain_of_ten_thousand_causes_is_bounded() -> None:
    error: BaseException = ValueError("0")
    for number in range(10_000):
        outer = ValueError(str(number))
        outer.__context__ = error
        error = outer
    failure = Failure.of(raised(error))
    assert len(failure.encode()) < 100_000
    links = 0
    link: Failure | None = failure
    while link is not None:
        links, link = links + 1, link.cause
    assert links == 9
    link_error: BaseException | None = error
    while link_error is not None:  # a chain this long is freed link by link
        link_error.__context__, link_error = None, link_error.__context__


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class ExitingText(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class NotAString(Exception):
    def __str__(self) -> Any:
        return 5  # noqa: PLE0307 - the subject


class Empty(Exception):
    def __len__(self) -> int:
        return 0


class BadNotes(Exception):
    __notes__: Any = 5


class Group(ExceptionGroup[Exception]):
    pass


@pytest.mark.parametrize(
    "error",
    [
        Unprintable(),
        ExitingText(),
        NotAString(),
        BadNotes(),
        Group("g", [Unprintable(), ValueError("inside")]),
        SystemExit(3),
        KeyboardInterrupt(),
        RecursionError(),
        SyntaxError("bad", ("file.py", "no line", 3, None)),  # type: ignore[arg-type]
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        OSError(2, "No such file", "\udcff\0"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_exception_breaks_its_own_failure(error: BaseException) -> None:
    failure = Failure.of(raised(error))
    assert failure.type == type(error).__qualname__
    assert clean(failure.message)
    assert clean(failure.traceback)
    assert Failure.decode(failure.encode()) == failure


def test_huge_texts_are_cut_keeping_head_and_tail() -> None:
    error = raised(ValueError("head" + "x" * 1_000_000 + "tail"))
    failure = Failure.of(error, limit=8192)
    assert 3000 < len(failure.traceback) <= 4096
    assert len(failure.encode()) <= 8192
    assert failure.traceback.startswith("Traceback (most")
    assert failure.traceback.endswith("xtail\n")
    assert "bytes left out" in failure.traceback
    assert len(failure.message) <= 256
    assert failure.message.startswith("headx")
    assert failure.message.endswith("xtail")


def test_a_deep_recursion_makes_a_short_traceback() -> None:
    def dive(depth: int) -> int:
        return dive(depth + 1) + 1

    with pytest.raises(RecursionError) as caught:
        dive(0)
    failure = Failure.of(caught.value)
    assert failure.type == "RecursionError"
    assert len(failure.encode()) <= 65_536


@given(st.lists(TEXTS, min_size=1, max_size=12), st.integers(1, 2000))
def test_a_failure_keeps_its_limit(texts: list[str], times: int) -> None:
    error: BaseException | None = None
    for text in texts:
        outer = type("Ü" * times, (Exception,), {"__module__": None})(text * times)
        outer.__cause__, error = error, outer
    assert error is not None
    assert len(Failure.of(raised(error), limit=4096).encode()) <= 4096


@given(TEXTS)
def test_texts_of_failures_are_clean_and_come_back(text: str) -> None:
    failure = Failure.of(raised(ValueError(text)))
    assert clean(failure.message + failure.traceback)
    assert Failure.decode(failure.encode()) == failure


def test_a_failure_can_be_stated_without_an_exception() -> None:
    failure = Failure("WorkerLost", "taskharbor", "killed by SIGKILL")
    assert Failure.decode(failure.encode()) == failure


def test_frames_of_what_runs_tasks_are_left_out_unless_they_raised() -> None:
    source = "def run(task):\n    return task()\n"
    ours: dict[str, Any] = {"__name__": "taskharbor.worker.executor"}
    exec(compile(source, "executor.py", "exec"), ours)

    def task() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError) as caught:
        ours["run"](task)
    text = Failure.of(caught.value).traceback
    assert "executor.py" not in text
    assert "in task" in text
    with pytest.raises(TypeError) as caught_there:
        ours["run"](None)
    assert "executor.py" in Failure.of(caught_there.value).traceback


@pytest.mark.parametrize(
    "value", [None, [], 5, ["E"], [["E", "m", "t"]], [["E", "m", "t", 5]], [[]], {}, "EEEE"]
)
def test_bytes_that_hold_no_failure_are_an_error(value: Any) -> None:
    with pytest.raises(DecodeError, match="not a failure"):
        Failure.decode(encode(value))


@given(TEXTS)
def test_clean_text_is_clean_and_leaves_clean_text_alone(text: str) -> None:
    cleaned = clean_text(text)
    assert clean(cleaned)
    assert clean_text(cleaned) == cleaned
    if clean_or_false(text):
        assert cleaned == text


def clean_or_false(text: str) -> bool:
    try:
        return clean(text)
    except UnicodeEncodeError:
        return False


def test_clean_text_shows_what_it_replaced() -> None:
    assert clean_text("a\0b\udc80c") == "a\\x00b\\udc80c"
