"""Flows that are stored with ``connection=``, while clients, connections, the server and the
workers are struck: a receipt and its flow are there together, or neither is."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import psycopg

from taskharbor import codec
from taskharbor.drivers.flows import FlowDriver
from taskharbor.flow.inputs import as_flows
from tests.chaos import flow_checker, flow_receipts, ledger
from tests.chaos.checker import Evidence
from tests.chaos.faults import KillProcess, Missed, Scene
from tests.chaos.flow_checker import FlowEvidence
from tests.chaos.flow_storm import all_edges, all_flows
from tests.chaos.posts import Pool, Post
from tests.chaos.sites import PostgresSite
from tests.chaos.storm import whole_jobs
from tests.chaos.weather import LOOK_SECONDS, Weather
from tests.scenarios.worker import ROOT
from tests.servers.process import ServerFailed
from tests.waiting import wait_until

CLIENTS = 2
POOLS: tuple[Pool, ...] = ("thread", "process")
PAUSE_SECONDS = 0.5
"""Between two blows, at most."""
END_SECONDS = 300.0
_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class Client(NamedTuple):
    process: subprocess.Popen[bytes]
    said: Path

    @property
    def told(self) -> list[str]:
        """The flows whose commit was confirmed; a line that a kill cut short is none."""
        text = self.said.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    def knows_more_than(self, flows: int) -> bool:
        return len(self.told) > flows

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class ReceiptStorm:
    """``run`` is one storm's life, of so many ``blows``. ``directory`` must exist, and keeps ledger
    and logs."""

    def __init__(self, seed: int, directory: Path, *, blows: int) -> None:
        self._seed = seed
        self._blows = blows
        self._rng = Random(f"receipts-{seed}")
        self._directory = directory
        self._site = PostgresSite(directory)
        self._posts: list[Post] = []
        self._weather = Weather(self._site, self._posts)
        self._clients: dict[int, Client] = {}
        self._born: list[Client] = []

    def run(self) -> list[str]:
        """What was broken; empty: every promise held."""
        (self._directory / "ledger").mkdir()
        with ExitStack() as exit_stack:
            site = exit_stack.enter_context(self._site)
            site.make_links(CLIENTS)
            with psycopg.connect(site.url, autocommit=True) as connection:
                connection.execute(flow_receipts.TABLE.encode())
            for number in range(len(POOLS)):
                exit_stack.callback(self._open_post(number).close)
            exit_stack.callback(self._end_clients)
            for number in range(CLIENTS):
                self._start_client(number)
            for post in self._posts:
                post.wait_ready()
            self._endure()
            self._end_clients()
            judge = as_flows(site.connect())
            exit_stack.callback(judge.close)
            self._wait_for_all(judge)
            for post in self._posts:
                post.leave()
            return self._violations(judge)

    def _open_post(self, number: int) -> Post:
        directory = self._directory / f"post-{number}"
        post = Post(
            number,
            self._site.url,
            directory,
            app_path="tests.chaos.flow_tasks:app",
            pool=POOLS[number],
        )
        self._posts.append(post)
        post.man()
        return post

    # --- the clients ----------------------------------------------------------------------------

    def _start_client(self, number: int) -> None:
        said = self._directory / f"client-{len(self._born)}"
        arguments = [self._site.url_for(number), str(1000 * self._seed + len(self._born))]
        with said.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", flow_receipts.__name__, *arguments], cwd=ROOT, stdout=out
            )
        self._clients[number] = Client(process, said)
        self._born.append(self._clients[number])

    def _end_clients(self) -> None:
        for client in self._clients.values():
            client.end()
        self._clients.clear()

    # --- the blows ------------------------------------------------------------------------------

    def _endure(self) -> None:
        blows = [self._kill_client] * 3 + [self._cut, self._lose_reply, self._lose_request]
        blows += [self._kill_child] * 2 + [self._end_sessions, self._kill_server]
        for blow in (self._rng.choice(blows) for _ in range(self._blows)):
            self._wait_for_news()
            try:
                blow()
            except (Missed, psycopg.Error) as error:
                self._weather.happened.append(f"{blow.__name__}: missed ({error})")
            else:
                self._weather.happened.append(blow.__name__)
            self._weather.keep_manned(time.monotonic() + PAUSE_SECONDS * self._rng.random())
        self._site.heal()

    def _wait_for_news(self) -> None:
        """Every blow hits clients that are at work."""
        for client in self._clients.values():
            wait_until(
                partial(client.knows_more_than, len(client.told)),
                seconds=END_SECONDS,
                what=f"a commit of a client\n{self.report([])}",
            )

    def _kill_client(self) -> None:
        number = self._rng.randrange(CLIENTS)
        self._clients[number].end()
        self._start_client(number)

    def _cut(self) -> None:
        self._rng.choice(self._site.links).cut()

    def _lose_reply(self) -> None:
        self._rng.choice(self._site.links).lose_next_reply(b"COMMIT")

    def _lose_request(self) -> None:
        self._rng.choice(self._site.links).lose_next_request(b"COMMIT")

    def _kill_child(self) -> None:
        post = self._rng.randrange(len(POOLS))
        KillProcess(post=post, role="child").strike(Scene(self._site, self._posts, self._rng))

    def _end_sessions(self) -> None:
        self._site.say(_SESSIONS)

    def _kill_server(self) -> None:
        self._site.server.kill()
        wait_until(self._is_back, seconds=END_SECONDS, what="the server")

    def _is_back(self) -> bool:
        try:
            self._site.revive()
        except ServerFailed:
            return False
        return True

    # --- the calm and the verdict ---------------------------------------------------------------

    def _wait_for_all(self, judge: FlowDriver) -> None:
        def over() -> bool:
            self._weather.keep_manned(time.monotonic() + LOOK_SECONDS)
            return all(flow.finished_at is not None for flow in all_flows(judge))

        wait_until(over, seconds=END_SECONDS, what=f"the flows\n{self.report([])}")

    def _violations(self, judge: FlowDriver) -> list[str]:
        with psycopg.connect(self._site.url) as connection:
            rows = connection.execute("SELECT flow, value FROM receipts").fetchall()
        receipts: dict[str, int] = dict(rows)
        flows = {flow.id: flow for flow in all_flows(judge)}
        jobs = {job.id: job for job in whole_jobs(judge)}
        told = {flow_id for client in self._born for flow_id in client.told}
        self._weather.happened.append(f"{len(receipts)} receipts, {len(told)} confirmed")
        broken = [f"flow {each} has no receipt" for each in flows.keys() - receipts.keys()]
        broken += [f"receipt {each} has no flow" for each in receipts.keys() - flows.keys()]
        broken += [f"receipt {each} was confirmed and is gone" for each in told - receipts.keys()]
        for flow_id in flows.keys() & receipts.keys():
            result = jobs[flows[flow_id].result].result
            value = None if result is None else codec.decode(result)
            if value != receipts[flow_id]:
                broken.append(f"flow {flow_id} came to {value} instead of {receipts[flow_id]}")
        if not receipts:
            broken.append("nothing was tried: there is no receipt")
        evidence = Evidence(
            promises=(),
            acknowledged={},
            ledger=ledger.read(self._directory / "ledger"),
            jobs=list(jobs.values()),
            queues=judge.queues(),
        )
        edges = {flow_id: list(all_edges(judge, flow_id)) for flow_id in flows}
        return [
            *broken,
            *flow_checker.violations(
                FlowEvidence(asked=[], flows=flows, edges=edges, evidence=evidence)
            ),
        ]

    def report(self, broken: list[str]) -> str:
        happened = self._weather.happened
        return "\n".join([*broken, "what happened:", *happened, f"logs: {self._directory}"])
