"""What goes wrong: small objects, each one blow, drawn by a seed and struck in its order.

``strike`` returns how to end what it began, or None when there is nothing to end. A blow that finds
nobody (a child that is just being replaced) falls into the void; whoever strikes says so.
"""

from __future__ import annotations

import errno
import resource
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar, Literal

import psutil
import psycopg
import redis

from tests.chaos.orders import LEASE_SECONDS
from tests.chaos.posts import Post, Role
from tests.chaos.sites import PostgresSite, RedisSite, ServerSite, Site, SQLiteSite, Undo
from tests.family import family


class Missed(Exception):
    """Nobody was there to be struck."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What can be struck. ``rng`` only chooses among processes, whose number no seed knows."""

    site: Site
    posts: Sequence[Post]
    rng: Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(ABC):
    """``seconds``: until it is ended, if it lasts."""

    seconds: float = 0.0

    @abstractmethod
    def strike(self, scene: Scene) -> Undo | None:
        """Raises Missed, or what the site raises that is itself away just then."""


# --- processes ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPost(Fault):
    """``post``: the number of the post."""

    post: int

    def find(self, scene: Scene, role: Role) -> psutil.Process:
        found = scene.posts[self.post].find(role)
        if not found:
            raise Missed(f"no {role} at post {self.post}")
        return scene.rng.choice(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class KillProcess(OnPost):
    """SIGKILL: the process says nothing more."""

    role: Role

    def strike(self, scene: Scene) -> None:
        _send(self.find(scene, self.role), signal.SIGKILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class KillHost(OnPost):
    """All processes of a worker at once: only the leases tell."""

    def strike(self, scene: Scene) -> None:
        family = scene.posts[self.post].family()
        # Stopped first, so that none sees another one's end.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in family:
                _send(process, number, missed_is_fine=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopProcess(OnPost):
    """SIGSTOP, and SIGCONT when others have had its jobs."""

    role: Role

    def strike(self, scene: Scene) -> Undo:
        process = self.find(scene, self.role)
        _send(process, signal.SIGSTOP)
        return lambda: _send(process, signal.SIGCONT, missed_is_fine=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopHost(OnPost):
    """As a laptop does that is shut and opened again, or a virtual machine that is moved."""

    def strike(self, scene: Scene) -> Undo:
        family = scene.posts[self.post].family()
        for process in family:
            _send(process, signal.SIGSTOP, missed_is_fine=True)

        def resume() -> None:
            for process in family:
                _send(process, signal.SIGCONT, missed_is_fine=True)

        return resume


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminate(OnPost):
    """SIGTERM to the supervisor; ``hurry``: a second one before the first was followed."""

    hurry: bool = False

    def strike(self, scene: Scene) -> Undo | None:
        supervisor = self.find(scene, "supervisor")
        scene.posts[self.post].terminate()
        if not self.hurry:
            return None
        return lambda: _send(supervisor, signal.SIGTERM, missed_is_fine=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload(OnPost):
    """SIGHUP: a new generation while the old one drains."""

    def strike(self, scene: Scene) -> None:
        _send(self.find(scene, "supervisor"), signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftClock(OnPost):
    """The wall clock of one host is wrong by ``by`` seconds for a while, and jumps back."""

    by: float

    def strike(self, scene: Scene) -> Undo:
        return scene.posts[self.post].shift_clock(self.by)


def _send(process: psutil.Process, number: int, *, missed_is_fine: bool = False) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess as error:
        if not missed_is_fine:
            raise Missed(f"{process.pid} was gone") from error


# --- connections ----------------------------------------------------------------------------------


HowToDisturb = Literal[
    "cut", "stall", "refuse", "delay", "half_close", "lose_next_reply", "lose_next_request"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturb(Fault):
    """What ``tests.proxy`` can do to one link."""

    link: int
    how: HowToDisturb

    def strike(self, scene: Scene) -> Undo | None:
        link = scene.site.links[self.link]
        if self.how == "delay":
            link.delay(0.15)
        else:
            getattr(link, self.how)()
        return None if self.how in ("cut", "half_close") else link.heal


# --- stores ---------------------------------------------------------------------------------------


class PauseStore(Fault):
    """Every process of the store is stopped: connections stay, nobody answers."""

    def strike(self, scene: Scene) -> Undo:
        assert scene.site.server_pid is not None
        processes = family(psutil.Process(scene.site.server_pid))
        for process in processes:
            _send(process, signal.SIGSTOP, missed_is_fine=True)

        def resume() -> None:
            for process in processes:
                _send(process, signal.SIGCONT, missed_is_fine=True)

        return resume


class KillStore(Fault):
    """SIGKILL to every process of it, and a start on the same data after a while."""

    def strike(self, scene: Scene) -> Undo:
        assert isinstance(scene.site, ServerSite)
        server = scene.site.server
        if not server.running:
            raise Missed("the store is down already")
        server.kill()
        return scene.site.revive


class RestartStore(Fault):
    """An orderly one."""

    def strike(self, scene: Scene) -> None:
        assert isinstance(scene.site, ServerSite)
        if not scene.site.server.running:
            raise Missed("the store is down already")
        scene.site.server.restart()


class FillRedis(Fault):
    """No room on its disk: the append-only file may not grow. A Redis that may not lose a second of
    it (``appendfsync always``) ends itself then; it is started again when there is room."""

    def strike(self, scene: Scene) -> Undo:
        site = scene.site
        assert isinstance(site, RedisSite)
        site.server.fill_disk()

        def make_room() -> None:
            if not site.server.ended:
                site.server.make_room()
            site.revive()

        return make_room


@dataclass(frozen=True, slots=True, kw_only=True)
class FillStoreDisk(Fault):
    """Somebody else's file takes what is left of the disk that the server has for itself.

    ``disk``: where it is mounted.
    """

    disk: Path

    def strike(self, scene: Scene) -> Undo:
        site = scene.site
        assert isinstance(site, ServerSite)
        ballast = self.disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(1 << 16)):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

        def make_room() -> None:
            ballast.unlink(missing_ok=True)
            site.revive()

        return make_room


class FailOver(Fault):
    """The server is gone for good, and its standby takes over its address."""

    def strike(self, scene: Scene) -> None:
        assert isinstance(scene.site, ServerSite)
        scene.site.fail_over()


@dataclass(frozen=True, slots=True, kw_only=True)
class TellRedis(Fault):
    """``command``, and ``undo`` at the end, as an administrator would type it."""

    command: tuple[str, ...]
    undo: tuple[str, ...] = ()

    def strike(self, scene: Scene) -> Undo | None:
        site = scene.site
        assert isinstance(site, RedisSite)
        site.say(*self.command)
        return (lambda: site.say(*self.undo)) if self.undo else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StarveRedis(Fault):
    """No new clients; with those that are there cut off, nobody gets in."""

    def strike(self, scene: Scene) -> Undo:
        site = scene.site
        assert isinstance(site, RedisSite)
        keeper = site.server.client()
        keeper.execute_command("CONFIG SET", "maxclients", 1)
        keeper.execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")

        def let_in() -> None:
            try:
                keeper.execute_command("CONFIG SET", "maxclients", 10_000)
            except redis.RedisError:
                # Cut off by another blow, and somebody else has the only place.
                site.server.restart()
            keeper.close()

        return let_in


_OTHERS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


class TerminateBackends(Fault):
    """pg_terminate_backend for everybody."""

    def strike(self, scene: Scene) -> None:
        assert isinstance(scene.site, PostgresSite)
        scene.site.say(f"SELECT pg_terminate_backend(pid) {_OTHERS}")


class ReadOnlyPostgres(Fault):
    """As after a failover that clients have not followed yet."""

    def strike(self, scene: Scene) -> Undo:
        site = scene.site
        assert isinstance(site, PostgresSite)
        site.say("ALTER SYSTEM SET default_transaction_read_only = on")
        # Struck by another blow in between, it reads the setting at its next start.
        with suppress(psycopg.Error):
            site.say("SELECT pg_reload_conf()")

        def end() -> None:
            # Not forbidden: it writes a file, no table.
            site.say("ALTER SYSTEM RESET default_transaction_read_only")
            site.say("SELECT pg_reload_conf()")

        return end


class CrowdPostgres(Fault):
    """Somebody else has all connections."""

    def strike(self, scene: Scene) -> Undo:
        site = scene.site
        assert isinstance(site, PostgresSite)
        site.say(f"SELECT pg_terminate_backend(pid) {_OTHERS}")
        return site.take_connections()


class LockRows(Fault):
    """Somebody locks the jobs in an order of their own and holds them: deadlocks and waits."""

    STATEMENT: ClassVar = (
        "DO $$ DECLARE r record; BEGIN "
        "FOR r IN SELECT seq FROM taskharbor.leases ORDER BY random() LOOP "
        "PERFORM 1 FROM taskharbor.leases WHERE seq = r.seq FOR UPDATE; "
        "PERFORM pg_sleep(0.01); END LOOP; END $$"
    )

    def strike(self, scene: Scene) -> Undo:
        assert isinstance(scene.site, PostgresSite)
        url, over = scene.site.url, threading.Event()

        def storm() -> None:
            while not over.is_set():
                try:
                    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
                        while not over.is_set():
                            connection.execute(self.STATEMENT.encode())
                except psycopg.Error:
                    continue  # a deadlock chose it, or the server was away or read-only

        thread = threading.Thread(target=storm, name="lock-storm")
        thread.start()
        # Not here: the server may be paused, and who would resume it if we waited for an answer?
        scene.site.exit.callback(thread.join)
        scene.site.exit.callback(over.set)
        return over.set


class LockSQLite(Fault):
    """A program that forgot to commit."""

    def strike(self, scene: Scene) -> Undo:
        assert isinstance(scene.site, SQLiteSite)
        return scene.site.lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class FillDisk(OnPost):
    """No file that a worker writes may grow: neither the store's nor the ledger's."""

    def strike(self, scene: Scene) -> Undo:
        post = scene.posts[self.post]
        for process in post.family():
            _limit_files(process, 4096)

        def make_room() -> None:
            # Also for those that were born into it.
            for process in post.family():
                _limit_files(process, resource.RLIM_INFINITY)

        return make_room


def _limit_files(process: psutil.Process, size: int) -> None:
    try:
        process.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    except psutil.NoSuchProcess:
        pass


# --- drawing --------------------------------------------------------------------------------------

Draw = Callable[[Random], Fault]
_PAST_THE_LEASE = (1.5 * LEASE_SECONDS, 2.5 * LEASE_SECONDS)


def draw_faults(rng: Random, site: str, *, posts: int, count: int) -> list[Fault]:
    """``count`` of those that ``site`` can suffer."""
    menu = [*_on_processes(posts), *_ON_STORES[site](posts)]
    return [rng.choice(menu)(rng) for _ in range(count)]


def _on_processes(posts: int) -> list[Draw]:
    roles: tuple[Role, ...] = ("child", "generation", "maintenance", "supervisor")

    def post(rng: Random) -> int:
        return rng.randrange(posts)

    def long(rng: Random) -> float:
        return rng.uniform(*_PAST_THE_LEASE)

    kills: list[Draw] = [
        lambda rng: KillProcess(post=post(rng), role=rng.choices(roles, (6, 2, 2, 1))[0])
    ] * 4
    stops: list[Draw] = [
        lambda rng: StopProcess(
            post=post(rng), role=rng.choices(roles, (5, 1, 3, 1))[0], seconds=long(rng)
        )
    ] * 3
    return [
        *kills,
        *stops,
        lambda rng: KillHost(post=post(rng)),
        lambda rng: StopHost(post=post(rng), seconds=long(rng)),
        lambda rng: Terminate(post=post(rng)),
        lambda rng: Terminate(post=post(rng), hurry=True, seconds=0.3 * rng.random()),
        lambda rng: Reload(post=post(rng)),
    ]


def _on_clocks(posts: int) -> list[Draw]:
    return [
        lambda rng: ShiftClock(
            post=rng.randrange(posts), by=rng.choice((3600.0, -3600.0)), seconds=3 * rng.random()
        )
    ]


def _on_memory(posts: int) -> list[Draw]:
    return [lambda rng: PauseStore(seconds=3 * rng.random()), *_on_clocks(posts)]


def _on_sqlite(posts: int) -> list[Draw]:
    # No clock: a file has none but its host's, which all workers on it share.
    return [
        lambda rng: LockSQLite(seconds=3 * rng.random()),
        lambda rng: FillDisk(post=rng.randrange(posts), seconds=2 * rng.random()),
    ]


_LINK_FAULTS: tuple[HowToDisturb, ...] = (
    *("cut", "cut", "stall", "refuse", "delay", "half_close"),
    *("lose_next_reply", "lose_next_reply", "lose_next_request"),
)


def _on_links(posts: int) -> list[Draw]:
    draw: Draw = lambda rng: Disturb(  # noqa: E731 - an entry of a menu
        link=rng.randrange(posts + 1), how=rng.choice(_LINK_FAULTS), seconds=3 * rng.random()
    )
    return [draw] * 4


def _on_servers(posts: int) -> list[Draw]:
    return [
        *_on_clocks(posts),
        *_on_links(posts),
        lambda rng: PauseStore(seconds=3 * rng.random()),
        lambda rng: KillStore(seconds=2 * rng.random()),
        lambda rng: RestartStore(),
        lambda rng: FailOver(),
    ]


def _on_redis(posts: int) -> list[Draw]:
    config = ("CONFIG SET", "maxmemory")
    return [
        *_on_servers(posts),
        lambda rng: TellRedis(command=("CLIENT KILL", "TYPE", "normal")),
        lambda rng: TellRedis(command=("CLIENT PAUSE", str(rng.randrange(100, 3000)))),
        lambda rng: TellRedis(command=("SCRIPT FLUSH",)),
        lambda rng: TellRedis(
            command=(*config, "1"), undo=(*config, "0"), seconds=2 * rng.random()
        ),
        lambda rng: StarveRedis(seconds=2 * rng.random()),
        lambda rng: FillRedis(seconds=2 * rng.random()),
    ]


def _on_postgres(posts: int) -> list[Draw]:
    return [
        *_on_servers(posts),
        lambda rng: TerminateBackends(),
        lambda rng: ReadOnlyPostgres(seconds=2 * rng.random()),
        lambda rng: CrowdPostgres(seconds=2 * rng.random()),
        lambda rng: LockRows(seconds=3 * rng.random()),
    ]


_ON_STORES: dict[str, Callable[[int], list[Draw]]] = {
    "memory": _on_memory,
    "sqlite": _on_sqlite,
    "redis": _on_redis,
    "postgres": _on_postgres,
}
