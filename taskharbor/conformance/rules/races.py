"""Races: between threads of one driver, and between processes on one store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest

from taskharbor.conformance import racer
from taskharbor.conformance.harness import Harness
from taskharbor.conformance.support import Suite, apply, get, ids, put, take
from taskharbor.drivers.base import InspectableDriver, JobFilter
from taskharbor.ids import new_id
from taskharbor.settlement import Settlement
from taskharbor.states import State

Lease = tuple[str, int]
THREADS = 8


class ThreadRules(Suite):
    """One driver, many threads."""

    @staticmethod
    def _race(race: Callable[..., Any], driver: InspectableDriver, **arguments: Any) -> list[Any]:
        with ThreadPoolExecutor(THREADS) as pool:
            racers = [pool.submit(race, driver, number, **arguments) for number in range(THREADS)]
            return [one.result() for one in racers]

    def test_threads_that_race_for_one_key_make_one_job(self, driver: InspectableDriver) -> None:
        answers = self._race(racer.enqueue_one_key, driver, racers=25, threads=4)
        _check_one_job(driver, list(chain.from_iterable(answers)))

    def test_threads_that_drain_a_queue_get_each_job_once(self, driver: InspectableDriver) -> None:
        put(driver, *(f"a{number}" for number in range(1000)))
        _check_each_once(driver, self._race(racer.drain, driver, limit=7), 1000)

    def test_threads_that_settle_one_lease_apply_it_once(self, driver: InspectableDriver) -> None:
        leases = _leases(driver, 50)
        verdicts = self._race(racer.settle_all, driver, leases=leases)
        _check_applied_once(driver, leases, verdicts)

    def test_threads_in_a_storm_leave_a_consistent_store(self, driver: InspectableDriver) -> None:
        _check_after_storm(driver, self._race(racer.storm, driver, jobs=12, steps=60))


class Racers:
    """Processes that wait at a starting line, each on its own connection."""

    def __init__(self, count: int = 8) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self._processes = [
            subprocess.Popen(
                # -P: the script's own directory is no place to import from.
                [sys.executable, "-P", str(Path(racer.__file__))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": paths},
            )
            for _ in range(count)
        ]

    def run(self, race: Callable[..., Any], url: str, **arguments: Any) -> list[Any]:
        """Run one function of :mod:`racer` in all of them at once; what each returned."""
        self.start(race, url, **arguments)
        return [self._hear(process) for process in self._processes]

    def start(self, race: Callable[..., Any], url: str, **arguments: Any) -> None:
        """The same, without waiting for what they return."""
        for number, process in enumerate(self._processes):
            command = {"race": race.__name__, "url": url, "number": number, **arguments}
            self._tell(process, json.dumps(command))
        for process in self._processes:
            assert self._hear(process) == "ready"
        for process in self._processes:
            self._tell(process, "go")

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever they do."""
        for process in self._processes:
            process.kill()

    def stop(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
        for process in self._processes:
            process.wait(timeout=240)
            assert process.stdout is not None
            process.stdout.close()

    @staticmethod
    def _tell(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()

    @staticmethod
    def _hear(process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "a racing process has died; its error is above"
        return json.loads(line)


class RaceRules(Suite):
    """Real processes on one store, which has the capability ``shared``."""

    @pytest.fixture(scope="class")
    @classmethod
    def racers(cls) -> Iterator[Racers]:
        racers = Racers()
        yield racers
        racers.stop()

    def test_1000_racers_for_one_key_make_one_job(
        self, live: InspectableDriver, harness: Harness, racers: Racers
    ) -> None:
        answers = racers.run(racer.enqueue_one_key, harness.url, racers=125, threads=8)
        everyone = [tuple(answer) for answer in chain.from_iterable(answers)]
        assert len(everyone) == 1000
        _check_one_job(live, everyone)

    def test_8_reservers_get_each_of_5000_jobs_once(
        self, live: InspectableDriver, harness: Harness, racers: Racers
    ) -> None:
        put(live, *(f"a{number}" for number in range(5000)))
        _check_each_once(live, racers.run(racer.drain, harness.url, limit=20), 5000)

    def test_one_lease_settled_by_many_processes_is_applied_once(
        self, live: InspectableDriver, harness: Harness, racers: Racers
    ) -> None:
        leases = _leases(live, 100)
        verdicts = racers.run(racer.settle_all, harness.url, leases=leases)
        _check_applied_once(live, leases, verdicts)

    def test_nothing_is_reserved_for_a_holder_once_retire_has_answered(
        self, live: InspectableDriver, harness: Harness, racers: Racers
    ) -> None:
        put(live, *(f"a{number}" for number in range(4000)))
        holder = new_id()
        answers = racers.run(
            racer.reserve_until_retired, harness.url, holder=holder, retire_after=20
        )
        told = sorted(answers[0]["told"])
        taken = sorted(chain.from_iterable(answer["taken"] for answer in answers))
        assert taken == told, "retire answers with every lease, and none comes after it"
        assert sorted(lease.fence for lease in live.held(holder)) == told
        assert len(told) < 4000, "the race was over before it began"

    def test_reapers_reclaim_each_lease_once(
        self, live: InspectableDriver, harness: Harness, racers: Racers
    ) -> None:
        put(live, *(f"a{number}" for number in range(200)))
        take(live, 200, lease=0.05)
        _wait_until(lambda: len(live.expired(500)) == 200)
        assert sum(racers.run(racer.reap, harness.url, limit=50)) == 200
        assert {found.losses for found in live.list_jobs(JobFilter(), limit=500).jobs} == {1}

    def test_schedulers_promote_each_job_once(
        self, live: InspectableDriver, harness: Harness, racers: Racers
    ) -> None:
        put(live, *(f"a{number}" for number in range(500)), delay=0.05)
        due_at = get(live, "a499").due_at
        _wait_until(lambda: live.exchange("nobody", ()).now >= due_at)
        assert sum(racers.run(racer.promote, harness.url, limit=50)) == 500

    def test_one_of_many_becomes_the_leader(
        self, live: InspectableDriver, harness: Harness, racers: Racers
    ) -> None:
        terms = racers.run(racer.lead, harness.url, name=new_id())
        assert len([term for term in terms if term is not None]) == 1

    def test_a_storm_of_processes_leaves_a_consistent_store(
        self, live: InspectableDriver, harness: Harness, racers: Racers
    ) -> None:
        _check_after_storm(live, racers.run(racer.storm, harness.url, jobs=12, steps=150))


def _leases(driver: InspectableDriver, count: int) -> list[Lease]:
    put(driver, *(f"a{number}" for number in range(count)))
    return [(lease.id, lease.fence) for lease in take(driver, count, lease=racer.LEASE)]


def _check_one_job(driver: InspectableDriver, answers: list[tuple[str, bool]]) -> None:
    (winner,) = [job_id for job_id, created in answers if created]
    assert {job_id for job_id, _ in answers} == {winner}
    assert ids(driver.list_jobs(JobFilter()).jobs) == [winner]


def _check_each_once(driver: InspectableDriver, taken: list[list[Lease]], count: int) -> None:
    everything = [tuple(lease) for lease in chain.from_iterable(taken)]
    assert Counter(job_id for job_id, _ in everything) == {
        f"a{number}": 1 for number in range(count)
    }
    assert len({fence for _, fence in everything}) == count
    if not driver.capabilities.sharded:
        for one in taken:
            assert all(earlier[1] < later[1] for earlier, later in pairwise(one))
    assert driver.queues()[0].counts == dict.fromkeys(State, 0) | {State.SUCCEEDED: count}


def _check_applied_once(
    driver: InspectableDriver, leases: list[Lease], verdicts: list[list[str]]
) -> None:
    for place, (job_id, _) in enumerate(leases):
        heard = [one[place] for one in verdicts]
        assert sorted(heard) == sorted(["applied"] + ["already"] * (len(verdicts) - 1))
        settled = get(driver, job_id)
        assert settled.result == b"racer-%d" % heard.index("applied")
        assert len(settled.history) == 1


def _check_after_storm(driver: InspectableDriver, logs: list[dict[str, list[Lease]]]) -> None:
    """Whatever happened in between: no lease twice, none ended twice, and what the store says
    about its jobs fits together."""
    given = [tuple(lease) for log in logs for lease in log["given"]]
    ended = [tuple(lease) for log in logs for lease in log["ended"]]
    assert len({fence for _, fence in given}) == len(given)
    assert len(set(ended)) == len(ended)
    assert set(ended) <= set(given)
    assert ended, "the storm did nothing"

    jobs = [get(driver, job_id) for job_id in ids(driver.list_jobs(JobFilter()).jobs)]
    counted: Counter[State] = Counter()
    for queue in driver.queues():
        counted.update(queue.counts)
    assert +counted == Counter(found.state for found in jobs)
    for found in jobs:
        fences = [attempt.fence for attempt in found.history]
        assert fences == sorted(set(fences))
        assert {(found.id, fence) for fence in fences} <= set(ended)
        assert found.state is not State.RUNNING, "every racer settled what it held"
        assert found.state.terminal == (found.finished_at is not None)
    ready = {found.id for found in jobs if found.state is State.READY}
    last = take(driver, 100, holder=new_id())
    assert set(ids(last)) == ready
    apply(driver, *(Settlement.succeed(lease.id, lease.fence, None) for lease in last))


def _wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come"
        time.sleep(0.01)
