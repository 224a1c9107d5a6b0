"""What ``doctor`` hears from the driver."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from taskharbor.clock import ManualClock
from taskharbor.drivers.base import Examinable
from taskharbor.drivers.sqlite import SQLiteDriver, connect, examining, wake
from tests.drivers.sqlite.conftest import job

_MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/ada/fast xfs rw 0 0
host:/my\\040disk /mnt/my\\040disk fuse.sshfs rw 0 0
tmpfs /home/ada/fast tmpfs rw 0 0
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mounts"
    path.write_text(_MOUNTS)
    return path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/jobs.db", "ext4"),
        ("/home/jobs.db", "nfs4"),
        ("/home/ada/jobs.db", "nfs4"),
        ("/home/ada/fast/jobs.db", "tmpfs"),
        ("/homestead/jobs.db", "ext4"),
        ("/mnt/my disk/jobs.db", "fuse.sshfs"),
    ],
)
def test_the_innermost_and_latest_mount_counts(mounts: Path, path: str, kind: str) -> None:
    assert examining.file_system(path, mounts) == kind


def test_a_local_file_needs_no_remark(driver: SQLiteDriver) -> None:
    assert isinstance(driver, Examinable)
    assert driver.examine() == []


def test_a_remote_file_system_is_remarked_on(
    driver: SQLiteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "file_system", lambda path: "nfs4")
    (remark,) = driver.examine()
    assert "nfs4" in remark.found
    assert "local disk" in remark.remedy


def test_a_log_that_cannot_be_moved_is_remarked_on(
    path: Path, driver: SQLiteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.enqueue([job()])
    monkeypatch.setattr(examining, "LONG_LOG_BYTES", 1000)
    (remark,) = driver.examine()
    assert f"{path}-wal" in remark.found


def test_a_system_without_watches_is_remarked_on(
    driver: SQLiteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "_inotify", lambda path: None)
    (remark,) = driver.examine()
    assert "max_user_instances" in remark.remedy


def test_a_clock_that_was_set_back_is_remarked_on(url: str) -> None:
    with closing(connect(url, clock=ManualClock(10_000.0))) as driver:
        driver.enqueue([job()])
    with closing(connect(url, clock=ManualClock(9_000.0))) as driver:
        (remark,) = driver.examine()
    assert "1,000 s" in remark.found
