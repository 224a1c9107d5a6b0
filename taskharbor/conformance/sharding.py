"""Rules for drivers that spread their jobs over shards.

Nearly every rule names its jobs as it likes, "a" and "b", wherever a sharded driver puts them.
Those about one line, one idempotency key or one flow say so (``in_one_shard``); there the driver
is given other names for the same jobs, which lie together, and its answers are read back. So every
rule of the suite runs on a sharded driver, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

Rule = TypeVar("Rule")
Rename = Callable[[str], str]

_MARK = "in_one_shard"
_NAMING = frozenset(
    {"id", "job_id", "idempotency_key", "flow", "awaits", "parent", "result", "source", "target"}
)
"""Fields that name a job, a flow or a key, where they hold a string."""
_TAKES_NAMES = frozenset(
    {
        *("get", "cancel", "requeue", "delete", "results", "wait_results", "inputs"),
        "input_results",
        *("flow", "flow_nodes", "flow_edges", "cancel_flow", "delete_flow"),
    }
)
"""Methods whose first argument is a name or a list of names."""


def in_one_shard(rule: Rule) -> Rule:
    """For a test, or a class of them, that is about jobs in one line, with a key, or of a flow."""
    tests = vars(rule).items() if isinstance(rule, type) else [("", rule)]
    for name, test in tests:
        if name.startswith("test_") or test is rule:
            setattr(test, _MARK, True)
    return rule


def is_in_one_shard(test: object) -> bool:
    return getattr(test, _MARK, False)


class InOneShard:
    """A driver to whom all jobs, keys and flows are given under names that lie in one shard.

    ``beside`` makes such a name: the given one, a "-", and something without a "-". It passes
    on whatever is asked of it, renamed by its structure: a wrapper that spelled out all methods of
    the contract would be longer and no clearer.
    """

    def __init__(self, driver: Any, beside: Rename) -> None:
        self._driver = driver
        self._beside = beside

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._driver, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            given = [_renamed(one, self._beside) for one in arguments]
            if name in _TAKES_NAMES:
                given[0] = _renamed_names(arguments[0], self._beside)
            return _renamed(found(*given, **options), self._plain)

        return call

    def _plain(self, name: str) -> str:
        head = name.rpartition("-")[0]
        return head if head and self._beside(head) == name else name


def _renamed_names(names: Any, rename: Rename) -> Any:
    return rename(names) if isinstance(names, str) else [rename(name) for name in names]


def _renamed(value: Any, rename: Rename) -> Any:
    """The same value, with other names for the jobs, keys and flows in it."""
    if type(value) is list:
        return [_renamed(one, rename) for one in value]
    if isinstance(value, tuple):
        if not hasattr(value, "_asdict"):
            return tuple(_renamed(one, rename) for one in value)
        named: Any = value
        return named._replace(**_changed(named._asdict(), rename))
    if is_dataclass(value) and not isinstance(value, type):
        known = {field.name: getattr(value, field.name) for field in fields(value)}
        changed = _changed(known, rename)
        return replace(value, **changed) if changed else value
    return value


def _changed(known: dict[str, Any], rename: Rename) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name, value in known.items():
        if name in _NAMING and isinstance(value, str):
            other = rename(value) if value else value
        else:
            other = _renamed(value, rename)
        if other is not value:
            changed[name] = other
    return changed
