"""What ``taskharbor doctor`` looks at: one function per subject, each finding with its remedy.

No check leaves a trace in the store, but a store that is a file is made if it is not there, as by
every command. A check that fails stops no other, except that without a store there is nothing to
ask it.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from taskharbor import defaults
from taskharbor.cli.target import import_app, store_url
from taskharbor.errors import (
    ConfigurationError,
    SchemaMismatch,
    StoreError,
    StoreReadOnly,
    TaskHarborError,
)
from taskharbor.states import State

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor
    from taskharbor.drivers.base import InspectableDriver

PROBE_QUEUE = "taskharbor.doctor"
SLOW_SECONDS = 0.05
SKEW_SECONDS = 1.0
WAITING_SECONDS = 600.0
ABANDONED_SECONDS = 10.0
LOW_DISK_BYTES = 1 << 30
NO_DISK_BYTES = 64 << 20
FEW_FILES = 1024


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``remedy`` says what to do unless all is well."""

    check: str
    level: Level
    found: str
    remedy: str | None = None


def examine(url: str | None, app_path: str | None) -> Iterator[Finding]:
    """Everything, in the order in which it should be mended."""
    yield _versions()
    yield _open_files()
    app: TaskHarbor | None = None
    if app_path:
        try:
            app = import_app(app_path)
        except ConfigurationError as error:
            yield Finding("app", Level.FAIL, str(error), "mend the app's module, or -A")
            return
        yield _app(app, app_path)
    chosen = store_url(url, app)
    yield from _settings(chosen, url, app)
    yield from _file(chosen)
    yield from _store(chosen)


# --- this machine -----------------------------------------------------------------------------


def _versions() -> Finding:
    from taskharbor import __version__

    found = f"taskharbor {__version__}, Python {platform.python_version()}, {sys.platform}"
    if platform.system() == "Linux":
        return Finding("versions", Level.OK, found)
    return Finding(
        "versions",
        Level.WARN,
        f"{found}: no death signal here, so a child whose code holds the GIL may outlive a killed "
        "worker",
        "run production workers on Linux",
    )


def _open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"up to {soft:,} open files"
    if soft == resource.RLIM_INFINITY or soft >= FEW_FILES:
        return Finding("limits", Level.OK, found)
    remedy = f"raise it to {FEW_FILES} or more: ulimit -n {FEW_FILES}, or LimitNOFILE= in systemd"
    return Finding("limits", Level.WARN, found, remedy)


# --- the settings -----------------------------------------------------------------------------


def _app(app: TaskHarbor, path: str) -> Finding:
    if app.tasks:
        return Finding("app", Level.OK, f"{path} has {len(app.tasks)} tasks")
    return Finding(
        "app",
        Level.WARN,
        f"{path} has no tasks",
        "import the modules that define them where the app is made",
    )


def _settings(chosen: str, url: str | None, app: TaskHarbor | None) -> Iterator[Finding]:
    from taskharbor.worker.banner import without_secrets

    environment = os.environ.get("TASKHARBOR_URL")
    source = "--url" if url else "the app" if app else "TASKHARBOR_URL" if environment else None
    shown = f"{without_secrets(chosen)} ({source or 'the default'})"
    if environment and environment != chosen:
        yield Finding(
            "settings",
            Level.WARN,
            f"{shown}, but TASKHARBOR_URL is {without_secrets(environment)}",
            "make them the same, or unset TASKHARBOR_URL",
        )
    elif chosen.startswith("sqlite:") and not _sqlite_path(chosen).is_absolute():
        yield Finding(
            "settings",
            Level.WARN,
            f"{shown} is a file in the current directory, {Path.cwd()}: processes started elsewhere"
            " use another one",
            "write an absolute path, with four slashes: sqlite:////srv/shop/jobs.db",
        )
    else:
        yield Finding("settings", Level.OK, shown)


# --- a store that is a file ----------------------------------------------------------------------


def _sqlite_path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path.removeprefix("/")))


def _file(url: str) -> Iterator[Finding]:
    """Its place on the disk, and who else can read it."""
    if not url.startswith("sqlite:"):
        return
    path = _sqlite_path(url)
    folder = path.absolute().parent
    if not folder.is_dir():
        remedy = f"make it: mkdir -p {folder}"
        yield Finding("file", Level.FAIL, f"there is no directory {folder}", remedy)
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(
            "file",
            Level.FAIL,
            f"{folder} can't be written to by this user; SQLite makes files beside the database",
            f"give the directory to this user: chown {_user()} {folder}",
        )
    elif path.exists() and path.stat().st_mode & 0o004:
        yield Finding(
            "file",
            Level.WARN,
            f"every user of this machine can read {path}, the jobs' arguments included",
            f"chmod 600 {path}*",
        )
    else:
        yield Finding("file", Level.OK, f"{path} is writable and not readable by all")
    yield _disk(folder)


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without an entry
        return str(os.getuid())


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{free / (1 << 30):,.1f} GiB free on the disk of {folder}"
    if free >= LOW_DISK_BYTES:
        return Finding("disk", Level.OK, found)
    level = Level.FAIL if free < NO_DISK_BYTES else Level.WARN
    return Finding("disk", level, found, "make room: a full disk refuses every enqueue")


# --- the store --------------------------------------------------------------------------------


def _store(url: str) -> Iterator[Finding]:
    from taskharbor.drivers.registry import connect

    try:
        driver = connect(url)
    except TaskHarborError as error:
        yield _refused("store", error)
        return
    try:
        yield _answers(driver)
        yield _writable(driver)
        yield from _examined(driver)
        yield from _sharing(driver)
        yield _clock(driver)
        yield from _lines(driver)
        yield _care(driver)
    except TaskHarborError as error:
        yield _refused("store", error)
    finally:
        driver.close()


def _refused(check: str, error: TaskHarborError) -> Finding:
    remedy = "start the store, or mend the URL"
    if isinstance(error, SchemaMismatch):
        remedy = "run taskharbor migrate, or upgrade TaskHarbor, whichever is older"
    elif isinstance(error, StoreReadOnly):
        remedy = "give this user the right to write, and name the primary, not a replica"
    elif isinstance(error, ConfigurationError):
        remedy = "mend the URL"
    return Finding(check, Level.FAIL, str(error), remedy)


def _answers(driver: InspectableDriver) -> Finding:
    driver.queues()
    began = time.perf_counter()
    driver.exchange(PROBE_QUEUE, ())
    seconds = time.perf_counter() - began
    found = f"{driver.url} answers in {seconds * 1000:.1f} ms"
    if seconds < SLOW_SECONDS:
        return Finding("store", Level.OK, found)
    return Finding("store", Level.WARN, found, "run workers close to the store, in one network")


def _writable(driver: InspectableDriver) -> Finding:
    """Writes something harmless, and takes it back."""
    try:
        driver.pause(PROBE_QUEUE)
        driver.resume(PROBE_QUEUE)
    except StoreError as error:
        return _refused("permissions", error)
    return Finding("permissions", Level.OK, "the store can be written to")


def _examined(driver: InspectableDriver) -> Iterator[Finding]:
    """What the driver itself finds wrong with the settings of its store."""
    from taskharbor.drivers.base import Examinable

    if isinstance(driver, Examinable):
        for remark in driver.examine():
            level = Level.FAIL if remark.fatal else Level.WARN
            yield Finding(remark.subject, level, remark.found, remark.remedy)


def _sharing(driver: InspectableDriver) -> Iterator[Finding]:
    if not driver.capabilities.shared:
        yield Finding(
            "sharing",
            Level.FAIL,
            f"{driver.url} lives in one process: no worker sees what another process enqueues",
            "use memory://name, or sqlite:///taskharbor.db",
        )


def _clock(driver: InspectableDriver) -> Finding:
    before = time.time()
    store = driver.exchange(PROBE_QUEUE, ()).now
    after = time.time()
    ahead = max(store - after, before - store, 0.0)
    found = f"the store's clock and this machine's differ by {ahead:.3f} s"
    if ahead < SKEW_SECONDS:
        return Finding("clock", Level.OK, found)
    return Finding("clock", Level.WARN, found, "set both by NTP: an eta is this machine's time")


def _lines(driver: InspectableDriver) -> Iterator[Finding]:
    """Queues that wait, are paused, or have dead jobs."""
    queues, now = driver.queues(), time.time()
    paused = [queue.name for queue in queues if queue.paused]
    if paused:
        names = " ".join(paused)
        remedy = f"taskharbor queues resume {names}"
        yield Finding("paused", Level.WARN, f"paused: {names}", remedy)
    for queue in queues:
        waited = 0.0 if queue.oldest_ready_at is None else now - queue.oldest_ready_at
        if waited > WAITING_SECONDS and not queue.paused:
            yield Finding(
                "queues",
                Level.WARN,
                f"a job in queue {queue.name} has been ready for {waited:,.0f} s",
                f"start a worker for it: taskharbor worker -Q {queue.name}, or more of them",
            )
    dead = sum(queue.counts.get(State.DEAD, 0) for queue in queues)
    if dead:
        remedy = "look why: taskharbor dlq list; then requeue or purge them"
        yield Finding("dead", Level.WARN, f"{dead:,} dead jobs", remedy)
    total = sum(sum(queue.counts.values()) for queue in queues)
    yield Finding("queues", Level.OK, f"{total:,} jobs in {len(queues)} queues")


def _care(driver: InspectableDriver) -> Finding:
    """Whether somebody reclaims expired leases."""
    left = driver.expired(1)
    late = driver.exchange(PROBE_QUEUE, ()).now - left[0].lease_expires_at if left else 0.0
    if late <= ABANDONED_SECONDS:
        return Finding("maintenance", Level.OK, "no lease is expired and left alone")
    return Finding(
        "maintenance",
        Level.WARN,
        f"a lease expired {late:,.0f} s ago and nobody reclaimed it",
        "start a worker, or taskharbor maintenance; right after an outage, wait "
        f"{defaults.LEASE_SECONDS:g} s",
    )
