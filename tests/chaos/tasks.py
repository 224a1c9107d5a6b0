"""The app that storms run. Every task keeps the ledger and returns its fence.

A sabotage (``tests.chaos.sabotage``) is not here: it is applied before the app is imported.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import time

from taskharbor import Fixed, TaskHarbor, current_job
from tests.chaos.ledger import effect, prove_lease

OLD_VERSION = "CHAOS_OLD_VERSION"
"""Set in the environment of workers that run the app as it was before its last deploy."""

app = TaskHarbor(backoff=Fixed(0.05))

ENDLESS = 10_000
"""More attempts and losses than any storm takes: such a job has to succeed."""


class Refused(Exception):
    """What a flaky task raises."""


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def work(seconds: float) -> int:
    """Looks after its lease as it goes: one proof in the middle, one at the end."""
    with effect():
        time.sleep(seconds / 2)
        prove_lease()
        time.sleep(seconds / 2)
        prove_lease()
    return current_job().fence


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def quick() -> int:
    with effect():
        pass
    return current_job().fence


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
async def work_async(seconds: float) -> int:
    with effect():
        await asyncio.sleep(seconds)
    return current_job().fence


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def flaky(failures: int) -> int:
    with effect():
        if current_job().attempt <= failures:
            raise Refused(f"attempt {current_job().attempt} of {failures} that fail")
    return current_job().fence


@app.task(max_attempts=1)
def once(seconds: float) -> int:
    with effect():
        time.sleep(seconds)
    return current_job().fence


@app.task(max_attempts=3)
def few(seconds: float) -> int:
    with effect():
        time.sleep(seconds)
    return current_job().fence


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def heavy(payload: bytes, result_bytes: int) -> bytes:
    """A result over the limit makes the job dead; that is what it is asked for."""
    with effect():
        size = len(payload)
    return bytes(size + result_bytes)


@app.task(max_attempts=2)
def leave(code: int) -> None:
    """Ends its process without a word."""
    with effect():
        os._exit(code)


@app.task(max_attempts=2)
def crash() -> None:
    with effect():
        ctypes.string_at(0)


@app.task(max_attempts=2)
def killed() -> None:
    """As the kernel does to the largest process when memory runs out."""
    with effect():
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def hold_gil(seconds: float) -> int:
    """Longer than a lease: nothing else in the process runs, the heartbeat neither."""
    with effect():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
        ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return current_job().fence


@app.task(max_attempts=1, timeout=0.3)
def overrun() -> None:
    """Runs into its limit."""
    with effect():
        time.sleep(60)


@app.task(max_attempts=2)
def blow_up(megabytes: int) -> int:
    """Takes more memory than its process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with effect():
        try:
            resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, hard))
            return len(bytearray(megabytes << 20))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def fill_memory(megabytes: int) -> int:
    """Harmless, unless its process has been given less."""
    with effect():
        pages = b"x" * (megabytes << 20)
        assert pages[-1:] == b"x"
    return current_job().fence


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS, store_result=False, keep_succeeded=5)
def tick(seconds: float) -> None:
    """One of very many, kept for moments and out of the ledger."""
    time.sleep(seconds)


if OLD_VERSION not in os.environ:

    @app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
    def brand_new() -> int:
        """Not in the app's version before: an old worker puts such jobs back."""
        with effect():
            pass
        return current_job().fence
