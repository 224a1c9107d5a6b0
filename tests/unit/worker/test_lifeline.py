"""Dying with the parent, and how an end is put in words."""

from __future__ import annotations

import os
import signal

import pytest

from taskharbor.worker.config import ExitCode
from taskharbor.worker.lifeline import describe_code, die_with_parent, process_state
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "was killed by SIGKILL"),
        (-11, "was killed by SIGSEGV"),
        (-999, "was killed by signal 999"),
        (0, "exited with code 0"),
        (1, "exited with code 1"),
        (ExitCode.RECYCLED, "exited with code 80 (recycled)"),
        (ExitCode.HARD_LIMIT, "exited with code 82 (hard limit)"),
    ],
)
def test_endings_in_words(code: int, words: str) -> None:
    assert describe_code(code) == words


def test_a_grandchild_dies_with_its_parent_even_when_it_only_sleeps() -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        pid = os.fork()
        if pid == 0:
            die_with_parent(os.getppid())
            os.write(writer, str(os.getpid()).encode())
            while True:
                signal.pause()
        while True:
            signal.pause()
    pid = int(os.read(reader, 32))
    assert process_state(pid) == "running"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    wait_until(lambda: process_state(pid) == "gone")
    os.close(reader)
    os.close(writer)


def test_who_is_an_orphan_already_ends_at_once() -> None:
    pid = os.fork()
    if pid == 0:
        die_with_parent(os.getppid() + 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == ExitCode.ORPHANED


def test_a_stopped_process_is_told_from_a_running_and_a_dead_one() -> None:
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    try:
        assert process_state(pid) == "running"
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: process_state(pid) == "stopped")
        os.kill(pid, signal.SIGKILL)
        # Not yet waited for: a zombie holds nothing any more.
        wait_until(lambda: process_state(pid) == "gone")
    finally:
        os.waitpid(pid, 0)
    assert process_state(pid) == "gone"
