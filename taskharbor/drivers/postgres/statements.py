"""Sending statements of ours, with less between them and libpq than psycopg's cursors have.

A cursor finds out for each call what to put where, whether it is prepared, and what the columns of
the answer are called. For statements that are known from the beginning that was half of what they
took in the client: 44 µs with ten arguments, 23 like this. Types are adapted as by psycopg. The
answer is waited for here as well, without psycopg's generators, which run through Python twice for
each time that they wait.
"""

from __future__ import annotations

import re
import select
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg.abc import Buffer
from psycopg.adapt import PyFormat, Transformer

Rows = list[tuple[Any, ...]]

PREPARE_AFTER = 5
"""Times that a connection sends a statement before it prepares it. The functions that we call keep
their plans anyway: what is saved is to parse and plan the calls, 50 µs of an exchange's 400."""

_ARGUMENT = re.compile(rb"%\((\w+)\)s")


class Statement:
    """``text`` has ``$1``, ``$2``, … for the arguments ``names``."""

    __slots__ = ("formats", "names", "text")

    def __init__(self, text: bytes) -> None:
        """``text`` names its arguments as psycopg's do: ``%(name)s``."""
        self.names = list(dict.fromkeys(name.decode() for name in _ARGUMENT.findall(text)))
        numbers = {name.encode(): b"$%d" % at for at, name in enumerate(self.names, 1)}
        self.text = _ARGUMENT.sub(lambda match: numbers[match[1]], text)
        self.formats = [PyFormat.AUTO] * len(self.names)


class Sender:
    """What one connection, in autocommit and ours alone, knows of the statements it has sent.

    ``prepares`` off: for a connection that may lead to another server session every time.
    ``patience``: seconds to wait for an answer, or for more of it; None: for ever.
    """

    __slots__ = ("_connection", "_names", "_pgconn", "_poll", "_prepared", "_prepares", "_sent",
                 "_transformer", "patience")  # fmt: skip

    def __init__(self, connection: psycopg.Connection[Any], *, prepares: bool) -> None:
        self.patience: float | None = None
        self._connection = connection
        self._pgconn = connection.pgconn
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._transformer = Transformer(connection)
        self._prepares = prepares
        self._sent: dict[tuple[Statement, tuple[int, ...]], int] = {}
        self._names: dict[tuple[Statement, tuple[int, ...]], bytes] = {}
        self._prepared = 0  # so many, of which some may be lost

    def run(self, statement: Statement, arguments: Mapping[str, Any]) -> Rows:
        """The rows of the answer. Raises psycopg's errors."""
        transformer = self._transformer
        values = [arguments[name] for name in statement.names]
        params = transformer.dump_sequence(values, statement.formats)
        types, formats = transformer.types or (), transformer.formats
        result = self._send(statement, types, params, formats)
        if not result.nfields:
            return []
        try:
            transformer.set_pgresult(result)
            return transformer.load_rows(0, result.ntuples, tuple)
        finally:
            transformer.set_pgresult(None)  # it may be large

    def _send(
        self,
        statement: Statement,
        types: tuple[int, ...],
        params: Sequence[Buffer | None],
        formats: Sequence[pq.Format] | None,
    ) -> pq.abc.PGresult:
        if name := self._name(statement, types):
            self._pgconn.send_query_prepared(name, params, formats, pq.Format.BINARY)
            try:
                return self._result()
            except psycopg.errors.InvalidSqlStatementName:
                # psycopg, which prepares some as well, says DEALLOCATE ALL after a rollback.
                self._names.clear()
                self._sent.clear()
        text = statement.text
        self._pgconn.send_query_params(text, params, types, formats, pq.Format.BINARY)
        return self._result()

    def _name(self, statement: Statement, types: tuple[int, ...]) -> bytes | None:
        """What it was prepared as, which is done now if it is time to; None: not yet."""
        if not self._prepares:
            return None
        key = (statement, types)
        if known := self._names.get(key):
            return known
        self._sent[key] = self._sent.get(key, 0) + 1
        if self._sent[key] <= PREPARE_AFTER:
            return None
        self._prepared += 1
        name = b"th_%d" % self._prepared
        self._pgconn.send_prepare(name, statement.text, param_types=types)
        self._result()
        self._names[key] = name
        return name

    def _result(self) -> pq.abc.PGresult:
        """Raises psycopg's errors."""
        pgconn = self._pgconn
        if pgconn.flush():  # more than the socket takes at once
            results = self._connection.wait(generators.execute(pgconn))
        else:
            results = []
            while True:
                while pgconn.is_busy():
                    self._wait()
                    pgconn.consume_input()
                result = pgconn.get_result()
                if result is None:
                    break
                results.append(result)
        last: pq.abc.PGresult = results[-1]
        if last.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise psycopg.errors.error_from_result(last, self._connection.info.encoding)
        return last

    def _wait(self) -> None:
        """Ctrl-C ends it; the connection is given up then, for its answer is still to come."""
        seconds = self.patience
        milliseconds = None if seconds is None or seconds == inf else int(seconds * 1000)
        if not self._poll.poll(milliseconds):
            raise psycopg.OperationalError(f"no answer within {seconds:g} s")
