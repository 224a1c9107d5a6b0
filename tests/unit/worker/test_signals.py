"""Signals that come before a process has its handlers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taskharbor.worker.signals import held_signals

_LATE = """
import signal, sys
sys.stdin.readline()  # not before the signal was sent
signal.signal(int(sys.argv[1]), lambda *_: print("handled"))
from taskharbor.worker.signals import let_signals_in
let_signals_in()
"""


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1],
)
def test_a_signal_waits_until_the_process_has_its_handlers(number: signal.Signals) -> None:
    with held_signals():
        process = subprocess.Popen(
            [sys.executable, "-c", _LATE, str(int(number))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
    process.send_signal(number)
    said, _ = process.communicate("go\n", timeout=90)
    assert (said, process.returncode) == ("handled\n", 0)


def test_the_process_that_starts_others_keeps_its_own_signals() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with held_signals():
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
