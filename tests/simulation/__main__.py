"""Many histories on all cores: ``python -m tests.simulation --histories 1000000``.

``--compiled`` makes a copy of the decision code, the memory store and the simulation into native
modules first (mypyc, which comes with mypy; needs a C compiler, and a minute), and has it play some
histories that Python plays, too: unless both consist of the very same steps, it is not used.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.simulation import compiled
from tests.simulation.broken import Broken
from tests.simulation.history import Tally
from tests.simulation.play import KINDS, LARGE, SMALL, SMALL_FOR_EACH_LARGE, play, play_many

CHUNK = 200
"""Histories that one process plays before it reports."""
PROGRESS_SECONDS = 60.0
COMPARED = 10
"""Seeds of each kind and size that are played with and without compiling."""


class Share(NamedTuple):
    """A range of seeds."""

    kind: str
    jobs: int
    first_seed: int
    histories: int


class Played(NamedTuple):
    tally: Tally
    cpu_seconds: float
    broken: str | None


def shares(histories: int, first_seed: int) -> Iterator[Share]:
    """About ``histories`` in all, as many of each kind, ten small ones for each large one."""
    small = max(1, round(histories / len(KINDS) / (1 + 1 / SMALL_FOR_EACH_LARGE)))
    for at in range(0, small, CHUNK):
        for kind in KINDS:
            for jobs, each in ((SMALL, 1), (LARGE, SMALL_FOR_EACH_LARGE)):
                begin, end = at // each, min(at + CHUNK, small) // each
                if end > begin:
                    yield Share(kind, jobs, first_seed + begin, end - begin)


def play_share(share: Share) -> Played:
    """Up to the first history that breaks a promise."""
    began = time.process_time()
    tally, broken = Tally(), None
    try:
        tally = play_many(share.kind, share.first_seed, share.histories, jobs=share.jobs)
    except Broken as error:
        broken = str(error)
    return Played(tally, time.process_time() - began, broken)


def fingerprints() -> list[list[float]]:
    """Of some histories of every kind: how many steps, requests and so on they took, and how
    long, to the last digit."""
    seeds = [
        (kind, jobs, seed) for kind in KINDS for jobs in (SMALL, LARGE) for seed in range(COMPARED)
    ]
    return [list(play(kind, seed, jobs=jobs)) for kind, jobs, seed in seeds]


def play_all(histories: int, first_seed: int, processes: int) -> int:
    """Prints a report, also when it is interrupted. The exit code: 1 if a promise was broken."""
    began = told_at = time.monotonic()
    total, cpu_seconds, broken = Tally(), 0.0, 0
    with multiprocessing.Pool(processes, initializer=_leave_interrupts_to_the_first) as pool:
        try:
            for played in pool.imap_unordered(play_share, shares(histories, first_seed)):
                total = total.plus(played.tally)
                cpu_seconds += played.cpu_seconds
                if played.broken:
                    broken += 1
                    print(played.broken, flush=True)
                if time.monotonic() - told_at >= PROGRESS_SECONDS:
                    told_at = time.monotonic()
                    print(f"{total.histories:,.0f} histories so far", flush=True)
        except KeyboardInterrupt:
            print("interrupted")
    print(report(total, time.monotonic() - began, cpu_seconds, processes, broken), flush=True)
    return 1 if broken else 0


def _leave_interrupts_to_the_first() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def report(total: Tally, seconds: float, cpu_seconds: float, processes: int, broken: int) -> str:
    count = max(1, total.histories)
    means = ", ".join(
        f"{value / count:.1f} {name}"
        for name, value in total._asdict().items()
        if name != "histories"
    )
    return (
        f"{total.histories:,.0f} histories in {seconds:.0f} s on {processes} processes: "
        f"{count / seconds:,.0f} a second, {count / max(cpu_seconds, 1e-9):,.0f} per CPU second\n"
        f"in each, on average: {means}\n"
        f"{broken or 'none'} broke a promise"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--fingerprints", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fingerprints:
        print(json.dumps(fingerprints()))
        return 0
    if given.compiled:
        return play_compiled(given.histories, given.first_seed, given.processes)
    return play_all(given.histories, given.first_seed, given.processes)


def play_compiled(histories: int, first_seed: int, processes: int) -> int:
    with TemporaryDirectory(prefix="taskharbor-simulation-") as directory:
        began = time.monotonic()
        run = compiled.build(Path(directory))
        print(f"compiled in {time.monotonic() - began:.0f} s", flush=True)
        same = json.loads(run("--fingerprints", capture=True)) == fingerprints()
        if not same:
            print("compiled, histories take other steps: fix that, or leave --compiled out")
            return 1
        numbers = {"histories": histories, "first-seed": first_seed, "processes": processes}
        arguments = [f"--{name}={value}" for name, value in numbers.items()]
        try:
            print(run(*arguments, capture=False), end="")
        except subprocess.CalledProcessError as error:
            return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
