"""When a child stops, and with which exit code.

    serving ──> draining ──> leaving
       └───────────────────────^

*Draining*: nothing new is reserved, what waits is handed back, what runs may end, what ended is
settled; then the child exits. *Leaving*: exit as soon as what can be handed back is. The first
reason to drain gives the exit code, unless a signal asks to stop: then nobody is to be replaced.
"""

from __future__ import annotations

from taskharbor.worker.config import ExitCode


class Shutdown:
    __slots__ = ("_code", "_leaving")

    def __init__(self) -> None:
        self._code: ExitCode | None = None
        self._leaving = False

    def stop(self) -> None:
        """SIGTERM: drain. A second one changes nothing: systemd sends SIGTERM to every process of a
        service, and the supervisor passes on its own. What a second signal to the worker means,
        the supervisor says with SIGQUIT."""
        if not self._leaving:
            self._code = ExitCode.OK

    def leave(self, code: ExitCode = ExitCode.OK) -> None:
        """SIGQUIT, or the parent is gone: leave."""
        self._code = code
        self._leaving = True

    def drain(self, code: ExitCode) -> None:
        """The child is used up (``RECYCLED``) or the store believes it dead (``RETIRED``)."""
        if self._code is None:
            self._code = code

    @property
    def draining(self) -> bool:
        """True also when leaving."""
        return self._code is not None

    @property
    def leaving(self) -> bool:
        return self._leaving

    def exit_code(self, *, running: int) -> ExitCode:
        """``running``: jobs that the exit interrupts; the supervisor has them handed back."""
        if running and self._code in (None, ExitCode.OK):
            return ExitCode.FORCED
        return ExitCode.OK if self._code is None else self._code


class Budget:
    """When a child is used up. ``tasks`` and ``memory_bytes`` 0: no limit."""

    __slots__ = ("_memory_bytes", "_tasks")

    def __init__(self, *, tasks: int = 0, memory_bytes: int = 0) -> None:
        self._tasks = tasks
        self._memory_bytes = memory_bytes

    def allows(self, jobs: int, *, spoken_for: int) -> int:
        """How many of ``jobs`` may be reserved, beside those started or waiting so far."""
        return max(0, min(jobs, self._tasks - spoken_for)) if self._tasks else jobs

    def used_up(self, *, started: int, memory_bytes: int | None = None) -> bool:
        if self._tasks and started >= self._tasks:
            return True
        return bool(self._memory_bytes and memory_bytes and memory_bytes > self._memory_bytes)

    @property
    def watches_memory(self) -> bool:
        return self._memory_bytes > 0
