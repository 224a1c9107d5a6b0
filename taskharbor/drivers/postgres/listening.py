"""The one connection of a process that listens, and who of its threads uses it.

It is opened by the first to wait and closed when nobody has waited for a while. Who waits alone
reads what comes by itself: a thread that read for it would wake it some 0.2 ms later. It also looks
for jobs there, so that a worker needs no connection for that beside the one on which it works. When
several wait, the thread that opened the connection reads for all of them. While nobody waits it
looks now and then, so that the server gets rid of what it has to say.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from taskharbor.drivers.postgres import faults
from taskharbor.drivers.postgres.line import Line
from taskharbor.drivers.postgres.statements import Rows
from taskharbor.drivers.postgres.store import Store
from taskharbor.drivers.postgres.topics import Heard, Topics
from taskharbor.errors import TaskHarborError

logger = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
"""How long the connection listens on when nobody waits."""
_TURN_SECONDS = 0.5
_NEVER = threading.Event()


class Ear:
    """Tells those who wait what the server notifies of, in the channels that somebody waited for:
    news of jobs, or of results."""

    def __init__(self, store: Store) -> None:
        self.topics = Topics()
        self._store = store
        self._connections = store.connections
        schema = store.address.schema
        self._channels = {"w": f"{schema}.jobs", "d": f"{schema}.results"}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
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
        self.topics.add(heard)
        try:
            self._see_to_channels()
            yield heard
        finally:
            self.topics.remove(heard)

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
        if self._broken or self.topics.present > alone:
            self._look_around.set()

    def _take_line(self) -> Line | None:
        """The line, for one who waits alone: to read, and then to release ``_reading``."""
        line = self._line
        if line is None or self.topics.present > 1:
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

    def _see_to_channels(self) -> None:
        """Have the thread open those that are missing, where somebody may listen."""
        if self.topics.not_heard():
            self._look_around.set()
        may = self._connections.address.notify and not self._connections.pooled
        with self._lock:
            if may and self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="taskharbor-listen", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """Wake everybody; the thread ends within half a second, or when a look is answered."""
        self._closed = True
        self.topics.wake_all()
        if (line := self._line) is not None:
            line.interrupt()
        self._look_around.set()

    def _run(self) -> None:
        try:
            connection = self._connections.open()
            line = Line(connection, self.topics.tell)
            try:
                if not self._connections.pooled:
                    self._listen(line)
            finally:
                self._hang_up(line)
        except (psycopg.Error, TaskHarborError) as error:
            # Those who wait look by themselves, and meet the reason when they do.
            logger.debug("nobody listens any more: %s", error)
        finally:
            # Before the next thread can be there, of which it would not be true.
            self.topics.hear_nothing()
            with self._lock:
                self._thread = None
            self.topics.wake_all()

    def _hang_up(self, line: Line) -> None:
        self._line = None
        self._seize(line, -1)
        line.close()
        self._broken = False
        self._reading.release()

    def _listen(self, line: Line) -> None:
        idle_since = time.monotonic()
        while not (self._closed or self._broken):
            if missing := self.topics.not_heard():
                self._seize(line, -1)
                try:
                    self._open_channels(line, missing)
                finally:
                    self._reading.release()
            waited = self.topics.present > 0
            if waited:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > IDLE_SECONDS:
                break
            if not self._read_for_others(line, _TURN_SECONDS if waited else 0) or not waited:
                self._look_around.wait(_TURN_SECONDS)
                self._look_around.clear()

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
        self._line = line
        self.topics.hear(kinds)
