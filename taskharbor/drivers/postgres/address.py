"""What a URL says: which server, which schema, and how to treat them.

``postgresql://user@host/database?namespace=taskharbor``. Options of our own are taken out,
everything else goes to libpq (``sslmode``, ``target_session_attrs``, several hosts, ...).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from taskharbor.errors import ConfigurationError

_NAMESPACE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,50}\Z")
"""51 characters: with ``.results`` behind it, a channel's name must fit into 63 bytes."""

_DECIMAL = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?\Z")
_HOST = re.compile(r"(\[[^]]*]|[^][:]*)(:\d*)?\Z")

LIBPQ_DEFAULTS = {
    "application_name": "taskharbor",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
"""A server that vanished without a word is noticed within 25 seconds, before a lease runs out."""
_ALWAYS = {"client_encoding": "utf8"}
"""In another encoding a key may have no place, and in that of a database in SQL_ASCII psycopg
returns bytes for text."""

POOL = 10
ANSWER_SECONDS = 10.0
"""Between two heartbeats of a default lease."""
_OURS = ("namespace", "pool", "notify", "pooler", "answer_seconds")


@dataclass(frozen=True, slots=True)
class Address:
    """``url`` is without a password. ``pool``: connections that this driver opens at most, but for
    the one that listens. ``answer_seconds``: how long the server may be silent within a call.
    ``notify`` off: it polls, and its callers need no NOTIFY. ``pooler`` yes: there is one between
    us and the server that gives each transaction another connection; auto: we look.
    """

    url: str
    conninfo: str
    namespace: str
    pool: int = POOL
    notify: bool = True
    pooler: Literal["auto", "yes", "no"] = "auto"
    answer_seconds: float = ANSWER_SECONDS

    @property
    def schema(self) -> str:
        """A quoted identifier."""
        return f'"{self.namespace}"'


def parse(url: str) -> Address:
    """Raises ConfigurationError saying what is wrong with the URL."""
    parts = urlsplit(url)
    _refuse_cut_password(parts)
    # (A plus is a plus to libpq, in a password for example.)
    query = dict(parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True))
    ours = {name: query.pop(name) for name in _OURS if name in query}
    options = LIBPQ_DEFAULTS | query | _ALWAYS
    conninfo = _whole(parts, parts.netloc, options)
    shown = {name: value for name, value in query.items() if "password" not in name} | ours
    user, at, hosts = parts.netloc.rpartition("@")
    netloc = user.partition(":")[0] + at + hosts
    return Address(
        url=_whole(parts, netloc, shown),
        conninfo=conninfo,
        namespace=_namespace(ours.get("namespace", "taskharbor")),
        pool=_pool(ours.get("pool", str(POOL))),
        answer_seconds=_seconds(ours.get("answer_seconds", str(ANSWER_SECONDS))),
        notify=_one_of("notify", ours.get("notify", "on"), ("on", "off")) == "on",
        pooler=cast(
            Literal["auto", "yes", "no"],
            _one_of("pooler", ours.get("pooler", "auto"), ("auto", "yes", "no")),
        ),
    )


def _whole(parts: SplitResult, netloc: str, query: Mapping[str, str]) -> str:
    """(urlunsplit would leave out the slashes before a host that is not named.)"""
    options = urlencode(query, quote_via=quote)
    return f"{parts.scheme}://{netloc}{parts.path}" + (f"?{options}" if options else "")


def _refuse_cut_password(parts: SplitResult) -> None:
    """The rest of it would be taken for a database, and shown."""
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if "@" in parts.path + parts.fragment or not all(map(_HOST.match, hosts)):
        raise ConfigurationError(
            "the Postgres URL can't be read (it is not shown, for it may have a password): write "
            "postgresql://user:password@host:port/database, with what has a meaning in a URL "
            "percent-encoded, in a password / as %2F, ? as %3F, # as %23, @ as %40 and : as %3A"
        )


def _namespace(name: str) -> str:
    if not _NAMESPACE.match(name):
        raise ConfigurationError(
            f"namespace={name} can't name a schema; use 1 to 51 letters, digits and '_', beginning "
            "with a letter or '_'"
        )
    return name


def _pool(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1000):
        raise ConfigurationError(f"pool={text}; use a number of connections from 1 to 1000")
    return int(text)


def _seconds(text: str) -> float:
    if not (_DECIMAL.match(text) and float(text) > 0):
        raise ConfigurationError(f"answer_seconds={text}; use a number of seconds above 0")
    return float(text)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ConfigurationError(f"{name}={value}; use {' or '.join(known)}")
    return value
