"""A generation: imports the app once and forks the children.

    python -m taskharbor.worker.generation CHANNEL TABLE WAKE_READ WAKE_WRITE PARENT

The first four are descriptors inherited from the supervisor, PARENT is its pid. Messages in:
``start`` (settings), ``fork`` (row, holder), ``tell`` (losses, for the app's signals). Messages
out: ``ready`` or ``failed`` (the import), ``forked`` (row, pid), ``exited`` (row, pid, wait
status).

Started with exec, so that every generation sees the code and the environment as they are now. The
children are forked from here and share the imported app's memory (``gc.freeze`` keeps the
collector from touching, and so copying, it). A fork copies one thread only and shares sockets: an
app whose import leaves threads or sockets behind is therefore not imported here when the
supervisor says so (``import_in_children``), but in each child, after the fork.

It dies with the supervisor and its children die with it; where the kernel does not see to that, at
the end of the channel.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from taskharbor.drivers.registry import find
from taskharbor.errors import ConfigurationError
from taskharbor.loader import load_app
from taskharbor.maintenance.losses import Loss
from taskharbor.worker.channel import Channel, Frame, await_start
from taskharbor.worker.child import run_child
from taskharbor.worker.config import ChildContext, ExitCode, WorkerConfig
from taskharbor.worker.leftovers import leftovers, open_sockets
from taskharbor.worker.lifeline import die_with_parent, name_process
from taskharbor.worker.logs import bind_role, configure_logging, get_logger
from taskharbor.worker.messenger import Messenger
from taskharbor.worker.signals import let_signals_in
from taskharbor.worker.table import SharedTable
from taskharbor.worker.wake import Wake

if TYPE_CHECKING:
    from taskharbor.app import TaskHarbor

_log = get_logger("taskharbor.worker")
_MAX_WATCHED_FILES = 20_000
LONGEST_SLEEP_SECONDS = 60.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGQUIT)


class Generation:
    """The template process. ``app`` None: children import it themselves."""

    def __init__(self, channel: Channel, table: SharedTable, wake: Wake, start: Frame) -> None:
        self._channel = channel
        self._table = table
        self._wake = wake
        self._config = WorkerConfig.from_json(start["config"])
        self._import_here = not start["import_in_children"]
        self._app: TaskHarbor | None = None
        self._children: dict[int, int] = {}
        self._messenger = Messenger(
            lambda losses: self._fork("messenger", partial(self._tell_losses, losses))
        )
        self._woken, self._waker = socket.socketpair()

    def run(self) -> ExitCode:
        if self._import_here and not self._import():
            return ExitCode.CONFIGURATION
        # In this order: what is garbage now must not be frozen into every child.
        gc.collect()
        gc.freeze()
        self._catch_child_exits()
        if not self._import_here:
            self._channel.send("ready")
        while not self._channel.closed:
            self._turn()
        return self._end()

    # --- the import ------------------------------------------------------------------------

    def _import(self) -> bool:
        sockets_before = open_sockets()
        try:
            self._app = app = self._load_app()
            find(app.url)  # what every child would import is imported once
            # Connections never cross a fork.
            app.close()
        except ConfigurationError as error:
            self._failed(str(error))
            return False
        except BaseException:  # noqa: BLE001 - whatever the user's module does, SystemExit included
            self._failed(f"importing {self._config.app_path} failed:\n{traceback.format_exc()}")
            return False
        self._channel.send(
            "ready",
            url=app.url,
            tasks=len(app.tasks),
            leftovers=leftovers(sockets_before),
            files=self._source_files(),
        )
        return True

    def _load_app(self) -> TaskHarbor:
        app = load_app(self._config.app_path)
        if self._config.url is not None:
            app.url = self._config.url
        return app

    def _failed(self, error: str) -> None:
        self._channel.send("failed", error=error, files=self._source_files())

    def _source_files(self) -> list[str]:
        """The imported modules' files below the current directory, for ``--reload``."""
        if not self._config.reload:
            return []
        here = os.getcwd() + os.sep
        files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        ours = sorted(file for file in files if isinstance(file, str) and file.startswith(here))
        return ours[:_MAX_WATCHED_FILES]

    # --- the loop --------------------------------------------------------------------------

    def _catch_child_exits(self) -> None:
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)

    def _turn(self) -> None:
        for frame in self._channel.receive():
            if frame["kind"] == "fork":
                self._fork_child(frame["index"], frame["holder"])
            elif frame["kind"] == "tell":
                self._tell(frame["losses"])
        if self._channel.closed:
            return
        writers = [self._channel] if self._channel.pending else []
        readers: list[Channel | socket.socket] = [self._channel, self._woken]
        seconds = min(self._messenger.tick(), LONGEST_SLEEP_SECONDS)
        ready, writable, _ = select.select(readers, writers, [], seconds)
        if writable:
            self._channel.flush()
        if self._woken in ready:
            _drain(self._woken)
            self._report_exits()

    def _fork_child(self, index: int, holder: str) -> None:
        try:
            pid = self._fork(f"child-{index}", partial(self._run_child, index, holder, os.getpid()))
        except OSError as error:  # out of memory or processes: tried again, with backoff
            self._channel.send("fork_failed", index=index, holder=holder, error=str(error))
            return
        self._children[pid] = index
        self._channel.send("forked", index=index, holder=holder, pid=pid)

    def _fork(self, role: str, run: Callable[[], int]) -> int:
        """Fork a process that does ``run`` and ends with its result; the pid."""
        parent = os.getpid()
        _flush_all()
        # A stop that comes while the child has none of its own handlers yet must not be swallowed
        # by ours.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(role, run, parent)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)

    def _tell(self, losses: list[list[Any]]) -> None:
        # With the app not imported here, only the messenger finds out whether anybody listens.
        if self._app is None or _listens_to_losses(self._app):
            self._messenger.tell([Loss.from_fields(fields) for fields in losses])

    def _report_exits(self) -> None:
        # Not waitpid(-1): the app's import may have started processes of its own.
        for pid, index in list(self._children.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._children[pid]
                self._channel.send("exited", index=index, pid=pid, status=status)

    def _end(self) -> ExitCode:
        """The supervisor closed the channel: with no child left, or because it is gone."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        self._messenger.end()
        return ExitCode.ORPHANED if self._children else ExitCode.OK

    # --- in the child ----------------------------------------------------------------------

    def _become(self, role: str, run: Callable[[], int], parent: int) -> NoReturn:
        code: int = ExitCode.INTERNAL
        try:
            die_with_parent(parent)
            name_process(f"th-{role}")
            bind_role(role)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, *_STOP_SIGNALS):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            for end in (self._woken, self._waker):
                end.close()
            self._channel.close()
            code = run()
        except BaseException:  # noqa: BLE001 - the last frame of the process: say it, then end
            _log.exception("a bug in TaskHarbor ended this process")
        finally:
            # Not sys.exit: what the generation registered with atexit is not the child's.
            _flush_all()
            os._exit(code)

    def _tell_losses(self, losses: list[Loss]) -> int:
        app = self._app or self._load_app()
        for loss in losses:
            loss.send(app.signals)
        app.close()
        return ExitCode.OK

    def _run_child(self, index: int, holder: str, parent: int) -> int:
        try:
            app = self._app or self._load_app()
            for hook in app.child_start_hooks:
                hook()
        except BaseException:  # noqa: BLE001 - whatever the user's code does
            _log.exception("the app could not start in this child", app=self._config.app_path)
            return ExitCode.START_FAILED
        context = ChildContext(
            app=app,
            config=self._config,
            holder=holder,
            index=index,
            table=self._table.child(index),
            wake=self._wake,
            parent=parent,
        )
        return run_child(context)


def main(arguments: list[str]) -> ExitCode:
    channel_fd, table_fd, wake_read, wake_write, parent = map(int, arguments)
    die_with_parent(parent)
    name_process("th-generation")
    # Handlers and not SIG_IGN: ignored signals stay ignored in the programs that tasks start.
    # The supervisor alone obeys these; the children set their own.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, _nothing)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    let_signals_in()
    channel = Channel.from_fd(channel_fd)
    start = await_start(channel)
    if start is None:
        return ExitCode.ORPHANED
    config = WorkerConfig.from_json(start["config"])
    configure_logging(config.log_level, config.log_format, role="generation")
    table = SharedTable(start["rows"], config.slots, fd=table_fd)
    return Generation(channel, table, Wake(wake_read, wake_write), start).run()


def _listens_to_losses(app: TaskHarbor) -> bool:
    signals = app.signals
    told = (signals.lost, signals.retried, signals.dead, signals.cancelled)
    return any(each.handlers for each in told)


def _drain(sock: socket.socket) -> None:
    try:
        while sock.recv(4096):
            pass
    except BlockingIOError:
        pass


def _flush_all() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # a closed pipe or stream: nobody is left to read it
            pass


def _nothing(number: int, frame: object) -> None:
    """Python-level handlers go back to the default over exec, unlike SIG_IGN."""


if __name__ == "__main__":
    code = main(sys.argv[1:])
    _flush_all()
    # Not sys.exit: threads that the app's import left behind would hold it up for ever.
    os._exit(code)
