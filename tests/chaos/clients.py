"""Those who want jobs done: they enqueue until the store says yes, cancel, and look on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any

from taskharbor.drivers.base import InspectableDriver
from taskharbor.drivers.flows import Flows
from taskharbor.errors import StoreError
from taskharbor.flow.plan import Edge, Flow, Node, Part
from taskharbor.message import Message
from taskharbor.states import State
from taskharbor.task import Task
from tests.chaos import tasks
from tests.chaos.orders import RACERS, Order

LOOK_SECONDS = 0.1
AGAIN_SECONDS = 0.1


class Clients:
    """``place`` and ``look_on`` start threads; ``close`` ends them.

    ``acknowledged``: from the id that was asked for to the one that the store answered.
    ``seen_ended``: the first terminal state that each job was seen in.
    """

    def __init__(self, orders: Sequence[Order], driver: InspectableDriver) -> None:
        """``driver``: on the straight way, for looking on. The app must be on its store."""
        self._orders = orders
        self._driver = driver
        self._lock = Lock()
        self._to_cancel: list[tuple[float, str]] = []
        self._closed = Event()
        self._placing: list[Future[None]] = []
        # As many as race for a key, and one that a long outage may hold up.
        self._pool = ThreadPoolExecutor(RACERS + 1, thread_name_prefix="client")
        self._looking = Thread(target=self._look_on, name="onlooker")
        self.acknowledged: dict[str, str] = {}
        self.seen_ended: dict[str, State] = {}

    def start(self) -> None:
        began = time.monotonic()
        waiting: SimpleQueue[Order] = SimpleQueue()
        for order in self._orders:
            waiting.put(order)
        for _ in range(RACERS + 1):
            self._placing.append(self._pool.submit(self._place_all, waiting, began))
        self._looking.start()

    @property
    def all_acknowledged(self) -> bool:
        """Raises what an enqueue raised that was no fault of the store's."""
        for future in self._placing:
            if future.done():
                future.result()
        return len(self.acknowledged) == sum(len(order.promises) for order in self._orders)

    @property
    def all_ended(self) -> bool:
        return self.all_acknowledged and self.waited_for == set()

    @property
    def waited_for(self) -> set[str]:
        """Jobs that are stored, and were not seen to have ended."""
        with self._lock:
            return set(self.acknowledged.values()) - self.seen_ended.keys()

    def close(self) -> None:
        self._closed.set()
        self._pool.shutdown()
        if self._looking.ident is not None:
            self._looking.join()

    # --- enqueueing ------------------------------------------------------------------------

    def _place_all(self, waiting: SimpleQueue[Order], began: float) -> None:
        while not self._closed.is_set() and not waiting.empty():
            order = waiting.get()
            self._closed.wait(max(0.0, began + order.at - time.monotonic()))
            while order.after is not None and not self._closed.is_set():
                if order.after.wait(LOOK_SECONDS):
                    break
            self._place(order)

    def _place(self, order: Order) -> None:
        """Until it is acknowledged: asking again under the same id is asking once."""
        while not self._closed.is_set():
            try:
                stored = self._enqueue_flow(order) if order.members else self._enqueue(order)
            except StoreError:
                self._closed.wait(AGAIN_SECONDS)
                continue
            with self._lock:
                self.acknowledged[order.promise.id] = stored
                self.acknowledged |= {m.promise.id: m.promise.id for m in order.members}
                if order.cancel_after is not None:
                    self._to_cancel.append((time.monotonic() + order.cancel_after, stored))
            return

    def _enqueue(self, order: Order) -> str:
        if order.body is None:
            return _task(order).delay(*order.args).id
        name = f"{tasks.__name__}.{order.task}"
        message = Message(id=order.promise.id, task=name, body=order.body, **order.options)
        return tasks.app.driver.enqueue([message])[0].id

    def _enqueue_flow(self, order: Order) -> str:
        driver = tasks.app.driver
        assert isinstance(driver, Flows)
        last = order.promise.id
        nodes = [Node(_message(member)) for member in order.members]
        edges = [Edge(node.message.id, last, place) for place, node in enumerate(nodes)]
        flow = Flow(id=f"flow-{last}", size=len(nodes) + 1, edges=len(edges), result=last)
        nodes.append(Node(_message(order), waits_for=len(edges)))
        driver.enqueue_flow(Part(flow, tuple(nodes), 0, tuple(edges), seal=True))
        return last

    # --- looking on ------------------------------------------------------------------------

    def _look_on(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            with suppress(StoreError):  # away just now: look again later
                self._cancel_due()
                self._see_ended()

    def _cancel_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [job_id for at, job_id in self._to_cancel if at <= now]
        if due:
            self._driver.cancel(due)
            with self._lock:
                self._to_cancel = [each for each in self._to_cancel if each[1] not in due]

    def _see_ended(self) -> None:
        ids = sorted(self.waited_for)
        for job_id, outcome in zip(ids, self._driver.results(ids), strict=True):
            if outcome is not None and outcome.state.terminal:
                self.seen_ended[job_id] = outcome.state


def _task(order: Order) -> Task[..., Any]:
    task = tasks.app.tasks[f"{tasks.__name__}.{order.task}"]
    return task.using(job_id=order.promise.id, **order.options)


def _message(order: Order) -> Message:
    return _task(order).message(order.args, {})
