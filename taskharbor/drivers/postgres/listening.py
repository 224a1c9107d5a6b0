"""The one connection of a process that listens, and who of its threads uses it.

It is opened by the first to wait and closed when nobody has waited for a while. Who waits alone
reads what comes by itself: a thread that read for it would wake it some 0.2 ms later. It also looks
for jobs there, so that a worker needs no connection for that beside the one on which it works. When
several wait, the thread that opened the connection reads for all of them. While nobody waits it
looks now and then, so that the server gets rid of what it has to say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

import psycopg

from taskharbor.drivers.postgres import faults
from taskharbor.drivers.postgres.line import Line
from taskharbor.drivers.postgres.statements import Rows
from taskharbor.drivers.postgres.store import Store
from taskharbor.errors import TaskHarborError

IDLE_SECONDS = 30.0
"""How long the connection listens on when nobody waits."""
REGISTER_SECONDS = 600.0
"""When to register again without having heard: prune removes what is an hour old."""
_TURN_SECONDS = 0.5
_NEVER = threading.Event()


class Heard:
    """``event``: look again. ``told``: because there was a notification of ``topics``."""

    __slots__ = ("event", "told", "topics")

    def __init__(self, topics: Sequence[str]) -> None:
        self.topics = topics
        self.event = threading.Event()
        self.told = False


class Ear:
    """Tells those who wait what the server notifies of, in the channels that somebody waited for:
    news of jobs, or of results."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connections = store.connections
        schema = store.address.schema
        self._channels = {"w": f"{schema}.jobs", "d": f"{schema}.results"}
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Heard]] = {}
        self._present: set[Heard] = set()
        self._registered: dict[str, float] = {}  # since when, until a notification comes
        self._thread: threading.Thread | None = None
        self._closed = False
        self._wanted: set[str] = set()
        self._heard: set[str] = set()
        """The channels of which a notification sent from now on will be heard."""
        self._line: Line | None = None
        self._reading = threading.Lock()
        """Held by whoever uses the line."""
        self._seizing = 0
        """How many are about to get it from whoever has it: the thread does not take it then. That
        it was interrupted is not enough, for it may be back before they have it."""
        self._broken = False
        self._look_around = threading.Event()
        """For the thread: somebody waits and nobody reads, or a channel is missing."""

    @contextmanager
    def hearing(self, topics: Sequence[str]) -> Iterator[Heard]:
        """What is told of ``topics``, all of one channel, in this context."""
        heard = Heard(topics)
        self._catch_up()
        self._add(heard)
        try:
            yield heard
        finally:
            self._remove(heard)

    @contextmanager
    def registering(self, topics: Sequence[str]) -> Iterator[tuple[list[str], float | None]]:
        """Those of ``topics`` that are to be registered in this context, and since when the
        youngest of all is (monotonic time); None while nothing is heard."""
        with self._lock:
            now = time.monotonic()
            since: float | None = None
            new = []
            if self._heard.issuperset(topic[0] for topic in topics):
                young = [self._registered.get(topic, -inf) for topic in topics]
                old = now - REGISTER_SECONDS
                new = [topic for topic, at in zip(topics, young, strict=True) if at < old]
                since = now if new else max(young, default=now)
                # Written down before it is done: the notification may be here before the answer.
                self._registered |= dict.fromkeys(new, now)
        try:
            yield new, since
        except TaskHarborError:
            with self._lock:
                for topic in new:
                    self._registered.pop(topic, None)
            raise

    def await_line(self, heard: Heard, seconds: float) -> None:
        """While it is being opened, for ``seconds`` at most."""
        if self._line is None and self._thread is not None:
            heard.event.wait(seconds)

    def rows(self, name: str, /, **arguments: Any) -> Rows:
        """As the store's, over the line for one who waits alone. Raises StoreErrors."""
        line = self._take_line()
        if line is not None:
            try:
                return self._ask(line, name, arguments)
            except psycopg.Error as error:
                # The store sends again what met a conflict, and says what the server is like now.
                if not (line.lost or faults.is_conflict(error)):
                    raise self._connections.translate(error) from error
        return self._store.rows(name, **arguments)

    def sleep(self, heard: Heard, seconds: float) -> None:
        """Until it is time for ``heard`` to look again, ``seconds`` at most."""
        line = self._take_line()
        if line is None:
            if not self._reading.locked():
                self._look_around.set()
            heard.event.wait(seconds)
        else:
            self._read(line, heard, seconds)
        heard.event.clear()

    def _catch_up(self) -> None:
        """What came while nobody read says which topics are to be registered again."""
        if self._reading.acquire(blocking=False):
            line = self._line
            if line is None or self._broken:
                self._reading.release()
            else:
                self._read(line, None, 0)

    def _read(self, line: Line, heard: Heard | None, seconds: float) -> None:
        """By one who has ``_reading``, which is released."""
        try:
            line.read(heard.event if heard else _NEVER, seconds)
        except psycopg.Error:
            self._broken = True  # the thread tells everybody
        finally:
            self._release(alone=heard is not None)

    def _ask(self, line: Line, name: str, arguments: Mapping[str, Any]) -> Rows:
        """By one who has ``_reading``, which is released."""
        try:
            return line.ask(self._store, name, arguments)
        except TaskHarborError:
            raise  # nothing was sent
        except BaseException as error:
            # Its answer may be still to come, or the server behind it not the right one any more.
            self._broken = not (isinstance(error, psycopg.Error) and faults.is_conflict(error))
            raise
        finally:
            self._release(alone=True)

    def _release(self, *, alone: bool) -> None:
        """``_reading``, by one who waits alone, or by one who does not wait."""
        self._reading.release()
        # Others may have found it held, and count on being told.
        if self._broken or len(self._present) > alone:
            self._look_around.set()

    def _take_line(self) -> Line | None:
        """The line, for one who waits alone: to read, and then to release ``_reading``."""
        line = self._line
        if line is None or len(self._present) > 1:
            return None
        if not self._seize(line, _TURN_SECONDS):
            return None
        if self._line is line and not self._broken:
            return line
        self._reading.release()
        return None

    def _seize(self, line: Line, seconds: float) -> bool:
        """``_reading``, from whoever has it; whether that was possible."""
        if self._reading.acquire(blocking=False):
            return True
        with self._lock:
            self._seizing += 1
        try:
            line.interrupt()
            return self._reading.acquire(timeout=seconds)
        finally:
            with self._lock:
                self._seizing -= 1

    def _add(self, heard: Heard) -> None:
        with self._lock:
            self._present.add(heard)
            for topic in heard.topics:
                self._waiters.setdefault(topic, set()).add(heard)
                self._wanted.add(topic[0])
            if not self._wanted <= self._heard:
                self._look_around.set()
            may = self._connections.address.notify and not self._connections.pooled
            if may and self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="taskharbor-listen", daemon=True
                )
                self._thread.start()

    def _remove(self, heard: Heard) -> None:
        with self._lock:
            self._present.discard(heard)
            for topic in heard.topics:
                those = self._waiters.get(topic, set())
                those.discard(heard)
                if not those:
                    self._waiters.pop(topic, None)
                    if topic.startswith("d:"):
                        self._registered.pop(topic, None)

    def close(self) -> None:
        """Wake everybody; the thread ends within half a second, or when a look is answered."""
        self._closed = True
        self._tell_all()
        if (line := self._line) is not None:
            line.interrupt()
        self._look_around.set()

    def _run(self) -> None:
        try:
            connection = self._connections.open()
            line = Line(connection, self._tell)
            try:
                if not self._connections.pooled:
                    self._listen(line)
            finally:
                self._hang_up(line)
        except (psycopg.Error, TaskHarborError):
            pass  # those who wait look by themselves, and meet the reason when they do
        finally:
            with self._lock:
                self._heard.clear()
                self._registered.clear()
                self._thread = None
            self._tell_all()

    def _hang_up(self, line: Line) -> None:
        self._line = None
        self._seize(line, -1)
        line.close()
        self._broken = False
        self._reading.release()

    def _listen(self, line: Line) -> None:
        idle_since = time.monotonic()
        while not (self._closed or self._broken):
            if missing := self._missing():
                self._seize(line, -1)
                try:
                    self._open_channels(line, missing)
                finally:
                    self._reading.release()
            waited = bool(self._present)
            if waited:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > IDLE_SECONDS:
                break
            if not self._read_for_others(line, _TURN_SECONDS if waited else 0) or not waited:
                self._look_around.wait(_TURN_SECONDS)
                self._look_around.clear()

    def _missing(self) -> set[str]:
        with self._lock:
            return self._wanted - self._heard

    def _read_for_others(self, line: Line, seconds: float) -> bool:
        """False when one of them reads, or is about to."""
        if self._seizing or not self._reading.acquire(blocking=False):
            return False
        try:
            line.read(_NEVER, seconds)
        finally:
            self._reading.release()
        return True

    def _open_channels(self, line: Line, kinds: set[str]) -> None:
        for kind in kinds:
            line.listen(self._channels[kind])
        with self._lock:
            self._heard |= kinds
            self._line = line
        self._tell_all()

    def _tell(self, topic: str) -> None:
        with self._lock:
            self._registered.pop(topic, None)
            for heard in self._waiters.get(topic, ()):
                heard.told = True
                heard.event.set()

    def _tell_all(self) -> None:
        with self._lock:
            for those in self._waiters.values():
                for heard in those:
                    heard.event.set()
