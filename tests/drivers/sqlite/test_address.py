"""URLs: what they name, and what is wrong with those that can't work."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from taskharbor.drivers.registry import connect
from taskharbor.drivers.sqlite.address import parse
from taskharbor.drivers.sqlite.opening import open_connection
from taskharbor.errors import ConfigurationError


def test_three_slashes_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = parse("sqlite:///data/jobs.db")
    monkeypatch.chdir("/")
    assert address.path == str(tmp_path / "data" / "jobs.db")


def test_four_slashes_are_absolute() -> None:
    assert parse("sqlite:////var/lib/app/jobs.db").path == "/var/lib/app/jobs.db"


def test_a_path_may_be_percent_encoded() -> None:
    assert parse("sqlite:////tmp/my%20jobs%23%3F.db").path == "/tmp/my jobs#?.db"


def test_options_are_read() -> None:
    address = parse("sqlite:////tmp/jobs.db?synchronous=FULL&busy_timeout=2.5")
    assert (address.synchronous, address.busy_timeout) == ("full", 2.5)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlite://:memory:", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://", "sqlite:///taskharbor.db"),
        ("sqlite:///", "sqlite:///taskharbor.db"),
        ("sqlite:////var/lib/", "names no file"),
        ("sqlite://jobs.db", "names a host"),
        ("sqlite:////tmp/a#b.db", "%23"),
        ("sqlite:////tmp/a%00b.db", "names no file"),
        ("sqlite:////tmp/a.db?sync=full", "known are synchronous, busy_timeout"),
        ("sqlite:////tmp/a.db?synchronous=off", "'normal'"),
        ("sqlite:////tmp/a.db?busy_timeout=soon", "0 to 3600"),
        ("sqlite:////tmp/a.db?busy_timeout=-1", "0 to 3600"),
        ("sqlite:////tmp/a.db?busy_timeout=nan", "0 to 3600"),
    ],
)
def test_a_url_that_cannot_work_says_why(url: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(url)
    assert hint in str(caught.value)


@pytest.mark.parametrize(("name", "level"), [("normal", 1), ("full", 2)])
def test_synchronous_reaches_sqlite(path: Path, name: str, level: int) -> None:
    with closing(open_connection(parse(f"sqlite:///{path}?synchronous={name}"))) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
