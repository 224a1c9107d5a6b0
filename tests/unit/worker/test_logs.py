"""Logs: one JSON object a line for programs, readable lines for people, levels for both."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from taskharbor.worker.logs import bind_role, configure_logging, get_logger


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_json_lines_carry_event_fields_level_and_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "json", role="supervisor")
    get_logger("taskharbor.worker").warning("child died", child=3, job_ids=["a"])
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "child died"
    assert (line["child"], line["job_ids"]) == (3, ["a"])
    assert (line["level"], line["process"], line["logger"]) == (
        "warning",
        "supervisor",
        "taskharbor.worker",
    )
    assert line["timestamp"].endswith("Z")


def test_a_tasks_own_logging_comes_out_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json", role="child-0")
    logging.getLogger("shop.mail").error("sent %d of %d", 3, 4)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["logger"], line["process"]) == (
        "sent 3 of 4",
        "shop.mail",
        "child-0",
    )


def test_exceptions_are_one_field(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json", role="child-0")
    try:
        raise ValueError("no such luck")
    except ValueError:
        get_logger("x").exception("failed")
    line = json.loads(capsys.readouterr().err)
    assert "ValueError: no such luck" in line["exception"]


@pytest.mark.parametrize("form", ["json", "human"])
def test_the_level_decides(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure_logging("warning", "json" if form == "json" else "human", role="r")
    get_logger("x").info("hidden one")
    logging.getLogger("y").info("hidden two")
    get_logger("x").warning("shown")
    out = capsys.readouterr().err
    assert "hidden" not in out
    assert "shown" in out


def test_auto_writes_json_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "auto", role="r")
    get_logger("x").info("hello")
    assert json.loads(capsys.readouterr().err)["event"] == "hello"


def test_a_forked_child_says_who_it_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json", role="generation")
    bind_role("child-5")
    get_logger("x").info("hello")
    assert json.loads(capsys.readouterr().err)["process"] == "child-5"
