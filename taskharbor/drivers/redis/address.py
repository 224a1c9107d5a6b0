"""What a URL says: where Redis is, how to get in, and which namespace to use."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from redis.backoff import NoBackoff
from redis.retry import Retry

from taskharbor.errors import ConfigurationError

Node = tuple[str, int]
Kind = Literal["single", "sentinel", "cluster"]

PORT = 6379
SENTINEL_PORT = 26379
TIMEOUT_SECONDS = 5.0
CONNECT_SECONDS = 3.0
MAX_SHARDS = 1024
_KINDS: dict[str, Kind] = {"redis+sentinel": "sentinel", "redis+cluster": "cluster"}
# No braces: they would move the namespace's hash tag.
_NAMESPACE = re.compile(r"[A-Za-z0-9_.:\-]{1,64}\Z")
_KNOWN = {
    "namespace": "the first part of every key, 'th' by default",
    "shards": "how many parts the namespace has, 1 by default; fixed while there are jobs",
    "timeout": f"seconds until a silent server is given up, {TIMEOUT_SECONDS:g} by default",
    "connect_timeout": f"seconds for a connection, {CONNECT_SECONDS:g} by default",
    "wait_replicas": "how many replicas must have an enqueue before it is acknowledged",
    "db": "the database's number, as in the path",
    "tls": "1: TLS, also with Sentinel and Cluster",
    "ca": "a file with the certificates that may sign the server's",
    "cert": "a file with this client's certificate",
    "key": "a file with this client's private key",
    "sentinel_username": "the account at the Sentinels",
    "sentinel_password": "the password at the Sentinels",
}


@dataclass(frozen=True, slots=True)
class Address:
    """``url`` is without secrets. ``settings`` are the arguments of a connection but for host and
    port; ``sentinel_settings`` those of one to a Sentinel."""

    url: str
    kind: Kind
    nodes: tuple[Node, ...]
    service: str
    namespace: str
    shards: int
    wait_replicas: int
    timeout_seconds: float
    settings: dict[str, Any]
    sentinel_settings: dict[str, Any]

    @property
    def own_prefix(self) -> str:
        """What the namespace's keys begin with that belong to no shard, however many there are."""
        return f"{{{self.namespace}}}:"

    def prefix(self, shard: int) -> str:
        """What the keys of a shard begin with; its braces keep them in one slot of a Cluster."""
        if self.shards == 1:
            return self.own_prefix
        return f"{{{self.namespace}:{shard}}}:"


def parse(url: str) -> Address:
    """Raises ConfigurationError, naming the part of ``url`` that can't be used."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(query.keys() - _KNOWN.keys())
    if "@" not in parts.netloc and _has_strayed(parts, unknown):
        # Without a word of it: it may be a part of the password.
        raise ConfigurationError(
            "the Redis URL has an @ behind its host; in a password / is written as %2F, ? as %3F "
            "and # as %23"
        )
    if unknown:
        known = "; ".join(f"{name} ({what})" for name, what in _KNOWN.items())
        raise ConfigurationError(
            f"the Redis URL has the unknown option {unknown[0]!r}; known are: {known}"
        )
    kind = _KINDS.get(parts.scheme, "single")
    service, db = _path(parts, kind, query)
    settings = _settings(parts, query, db)
    namespace = query.get("namespace", "th")
    if re.search(r":\d+\Z", namespace):
        raise ConfigurationError(
            f"the namespace {namespace!r} ends like the shard of another one; let it end otherwise"
        )
    if not _NAMESPACE.match(namespace):
        raise ConfigurationError(
            f"the namespace {namespace!r} can't be used; write 1 to 64 letters, digits, '_', '.', "
            "':' or '-'"
        )
    return Address(
        url=_shown(parts, query),
        kind=kind,
        nodes=_nodes(parts, kind),
        service=service,
        namespace=namespace,
        shards=_number(query, "shards", int, 1, 1, MAX_SHARDS),
        wait_replicas=_number(query, "wait_replicas", int, 0, 0, 100),
        timeout_seconds=settings["socket_timeout"],
        settings=settings,
        sentinel_settings=_sentinel_settings(settings, query),
    )


def _has_strayed(parts: SplitResult, unknown: list[str]) -> bool:
    """Whether an account seems to be cut in two by a character that ends the host."""
    behind = [parts.fragment, *unknown] if parts.scheme == "unix" else [parts.path, parts.fragment]
    return any("@" in text for text in [*behind, *unknown])


def _number(
    query: dict[str, str],
    name: str,
    kind: Callable[[str], Any],
    default: float,
    least: float,
    most: float,
) -> Any:
    try:
        value = kind(query.get(name, str(default)))
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise ConfigurationError(
            f"{name}={query.get(name)!r} in the Redis URL is not a number from {least:g} to "
            f"{most:g}: {_KNOWN[name]}"
        )
    return value


def _path(parts: SplitResult, kind: Kind, query: dict[str, str]) -> tuple[str, int]:
    """The Sentinels' name of the master, and the database."""
    if parts.scheme == "unix":
        return "", _number(query, "db", int, 0, 0, 1 << 20)
    words = [unquote(word) for word in parts.path.split("/") if word]
    service = ""
    if kind == "sentinel":
        if not words:
            raise ConfigurationError(
                "a Sentinel URL needs the name that the Sentinels know the master by: "
                "redis+sentinel://host:26379,host:26379/NAME/0"
            )
        service = words.pop(0)
    query = {"db": words[0]} | query if words else query
    if len(words) > 1:
        raise ConfigurationError(f"the path {parts.path!r} of the Redis URL has too many parts")
    db = _number(query, "db", int, 0, 0, 1 << 20)
    if kind == "cluster" and db:
        raise ConfigurationError("a Redis Cluster has only database 0; use namespace= instead")
    return service, db


def _nodes(parts: SplitResult, kind: Kind) -> tuple[Node, ...]:
    if parts.scheme == "unix":
        return ()
    default = SENTINEL_PORT if kind == "sentinel" else PORT
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if kind == "single" and len(hosts) > 1:
        raise ConfigurationError(
            "several hosts need redis+sentinel:// or redis+cluster://, redis:// takes one"
        )
    return tuple(_node(text, default) for text in hosts)


def _node(text: str, default_port: int) -> Node:
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "localhost", parts.port or default_port
    except ValueError as error:
        raise ConfigurationError(f"{text!r} in the Redis URL is not host:port ({error})") from error


def _settings(parts: SplitResult, query: dict[str, str], db: int) -> dict[str, Any]:
    account, _, _ = parts.netloc.rpartition("@")
    username, _, password = account.partition(":")
    settings: dict[str, Any] = {
        "db": db,
        "username": unquote(username) or None,
        "password": unquote(password) or None,
        "socket_timeout": _number(query, "timeout", float, TIMEOUT_SECONDS, 0.01, 3600),
        "socket_connect_timeout": _number(
            query, "connect_timeout", float, CONNECT_SECONDS, 0.01, 3600
        ),
        "protocol": 2,
        # The caller repeats what may be repeated; it alone knows when that is worth the time.
        "retry": Retry(NoBackoff(), 0),
    }
    if parts.scheme == "unix":
        return settings | {
            "unix_socket_path": unquote(parts.netloc.rpartition("@")[2] + parts.path)
        }
    settings |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive()}
    if parts.scheme == "rediss" or query.get("tls", "0") not in ("0", ""):
        settings |= _tls(query)
    return settings


def _keepalive() -> dict[int, int]:
    """A peer that vanished is noticed after 10 + 3 · 3 s, where the system can be told so."""
    wanted = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): n for name, n in wanted.items() if hasattr(socket, name)}


def _tls(query: dict[str, str]) -> dict[str, Any]:
    return {
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": query.get("ca"),
        "ssl_certfile": query.get("cert"),
        "ssl_keyfile": query.get("key"),
    }


def _sentinel_settings(settings: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
    return settings | {
        "db": 0,
        "username": query.get("sentinel_username"),
        "password": query.get("sentinel_password"),
    }


def _shown(parts: SplitResult, query: dict[str, str]) -> str:
    kept = {name: value for name, value in query.items() if name != "sentinel_password"}
    path = f"//{parts.netloc.rpartition('@')[2]}{parts.path}"
    return f"{parts.scheme}:{path}" + (f"?{urlencode(kept)}" if kept else "")
