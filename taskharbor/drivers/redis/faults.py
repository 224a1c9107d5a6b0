"""What an error of Redis means to the caller, and what to do about it."""

from __future__ import annotations

import re

import redis
from redis import exceptions

from taskharbor.errors import (
    ConfigurationError,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    TaskHarborError,
)

# Inside of a script Redis wraps the server's word in a sentence of its own, so it is searched for.
# The first that is found counts.
_MEANINGS: tuple[tuple[str, type[TaskHarborError], str], ...] = (
    ("NOAUTH", ConfigurationError, "it asks for a password: redis://:PASSWORD@host"),
    ("WRONGPASS", ConfigurationError, "mend the user or the password in the URL"),
    (
        "NOPERM|can't run this command|no permissions",
        ConfigurationError,
        "give the account the rights that docs/redis.md lists",
    ),
    ("OOM command not allowed", StoreFull, "raise maxmemory, or delete finished jobs"),
    ("READONLY", StoreReadOnly, "name the master in the URL, or use redis+sentinel://"),
    ("MISCONF", StoreReadOnly, "it can't write to its disk; look into its log and make room"),
    ("NOREPLICAS", StoreUnavailable, "too few replicas are connected for min-replicas-to-write"),
    ("LOADING", StoreUnavailable, "it is loading its data; try again soon"),
    ("MASTERDOWN", StoreUnavailable, "a replica has lost its master; try again after a failover"),
    ("CLUSTERDOWN", StoreUnavailable, "the cluster has lost slots; a failover may be under way"),
    (
        "TRYAGAIN|^ASK |^MOVED |non local key",
        StoreUnavailable,
        "a slot is on its way to another node; try again when it has arrived",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        StoreUnavailable,
        "call it by the name in its certificate, and say who has signed that: ?ca=FILE",
    ),
    ("BUSY", StoreUnavailable, "a script runs for too long there; look for it with SLOWLOG"),
    (
        "unknown command|Unknown Redis command|cluster support disabled",
        ConfigurationError,
        "TaskHarbor needs Redis 6.2 or later with scripts, and redis+cluster:// a Cluster",
    ),
    (
        "invalid DB index|DB index is out of range|SELECT is not allowed",
        ConfigurationError,
        "mend the database's number in the URL",
    ),
)

# redis-py makes a class of the code that an error begins with, and cuts it off.
_CODES: tuple[tuple[type[redis.RedisError], str], ...] = (
    (redis.AuthenticationError, "WRONGPASS"),
    (exceptions.NoPermissionError, "NOPERM"),
    (exceptions.OutOfMemoryError, "OOM command not allowed"),
    (redis.ReadOnlyError, "READONLY"),
    (redis.BusyLoadingError, "LOADING"),
    (exceptions.MasterDownError, "MASTERDOWN"),
    (exceptions.TryAgainError, "TRYAGAIN"),
    (exceptions.MovedError, "MOVED"),  # to redis-py a kind of AskError
    (exceptions.AskError, "ASK"),
    (exceptions.ClusterDownError, "CLUSTERDOWN"),
)


def is_moved(error: redis.RedisError) -> bool:
    """Whether another node has the slot. redis-py before 6 has a class for it in its own client of
    clusters only."""
    return isinstance(error, exceptions.MovedError) or str(error).startswith("MOVED ")


def translate(error: redis.RedisError, url: str) -> TaskHarborError:
    """The error of ours that ``error`` means, to be raised from it."""
    if is_moved(error) and not url.startswith("redis+cluster:"):
        return ConfigurationError(
            f"Redis at {url} is a node of a Cluster; write redis+cluster:// in the URL"
        )
    text = str(error)
    for exception, code in _CODES:
        if isinstance(error, exception):
            text = f"{code} {text}"
            break
    for needle, kind, remedy in _MEANINGS:
        if re.search(needle, text):
            return kind(f"Redis at {url} refuses: {error}; {remedy}")
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return StoreUnavailable(f"Redis at {url} does not answer: {error}")
    return StoreError(f"Redis at {url} failed: {error}")
