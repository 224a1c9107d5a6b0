"""Processes that the supervisor starts with exec, each with a channel to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from taskharbor.worker.channel import channel_pair
from taskharbor.worker.lifeline import describe_code
from taskharbor.worker.signals import held_signals


class Subprocess:
    """One running ``python -m module CHANNEL fd… PARENT``, with its end of the channel.

    ``fds`` are inherited by the process under the same numbers. The first message is ``start``. The
    module calls ``let_signals_in`` when it has its handlers.
    """

    def __init__(self, module: str, fds: Sequence[int], **start: Any) -> None:
        self.channel, theirs = channel_pair()
        inherited = (theirs.fileno(), *fds)
        with theirs, held_signals():
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, (*inherited, os.getpid()))],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
            )
        self.channel.send("start", sys_path=sys.path, **start)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> bool:
        """Whether the process is gone; never blocks."""
        return self._process.poll() is not None

    @property
    def signalled(self) -> bool:
        """Whether a signal ended it; False while it runs."""
        return (self._process.returncode or 0) < 0

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        code = self._process.returncode
        return "is running" if code is None else describe_code(code)

    def end(self, seconds: float = 2.0) -> None:
        """Close the channel and wait for the end, which that brings; kill it after ``seconds``."""
        self.channel.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait: nothing can hold that up for long."""
        self._process.kill()
        self._process.wait()
