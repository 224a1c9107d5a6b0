"""A TCP proxy on loopback that misbehaves on demand, between a client and a real server.

    with TcpProxy.before(redis_url) as proxy:
        client = connect(proxy.url)
        lost = proxy.lose_next_reply(b"EVALSHA")
        ...  # the server runs the request, the client sees its connection cut
        lost.wait()

It knows nothing of protocols: a request is what the client sends at one go, a reply is what the
server sends until it falls silent. Every fault holds for connections that exist and for new ones,
until `heal()`.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 65_536

# A server that has answered a request whole says nothing more for this long. (Postgres sends the
# first rows of a long result before it commits: cutting at the first byte would come too early.)
QUIET_SECONDS = 0.05

Side = Literal["client", "server"]


class _Link:
    """One client's connection and the one to the server that goes with it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.losing_reply: threading.Event | None = None
        self.is_cut = False

    def cut(self) -> None:
        """Reset both connections: each side gets ECONNRESET, not an orderly end."""
        self.is_cut = True
        for end in (self.client, self.server):
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RD)  # wakes the pump that blocks in recv
            except OSError:
                continue  # this end is gone already

    def close(self) -> None:
        self.client.close()
        self.server.close()


class TcpProxy:
    """Forwards `127.0.0.1:port` to `target`. Faults are methods; each may be called at any time."""

    def __init__(self, target: tuple[str, int], *, url: str = "") -> None:
        self._target = target
        self._target_url = url
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = False
        self._refusing = False
        self._delay_seconds = 0.0
        self._armed: Callable[[_Link, bytes], bool] | None = None
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @classmethod
    def before(cls, url: str) -> Self:
        """A proxy to the server that `url` names; its own `url` leads to the same through it."""
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise ValueError(f"a proxy needs host and port: {url}")
        return cls((parts.hostname, parts.port), url=url)

    @property
    def url(self) -> str:
        """The server's URL with this proxy's address."""
        parts = urlsplit(self._target_url)
        account, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{account}{at}127.0.0.1:{self.port}"))

    def turn_to(self, url: str) -> None:
        """As an address does that moves to another server: connections are cut, new ones lead to
        the server of `url`."""
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise ValueError(f"a proxy needs host and port: {url}")
        self._target = (parts.hostname, parts.port)
        self.cut()

    # --- faults ------------------------------------------------------------------------------

    def delay(self, seconds: float) -> None:
        """Hold everything back for `seconds`, in each direction."""
        self._delay_seconds = seconds

    def stall(self) -> None:
        """Half-open: connections stay, also new ones are taken, and nothing goes through.

        What was sent meanwhile arrives after `heal()`, as after a network partition.
        """
        self._flowing.clear()

    def cut(self) -> int:
        """Reset every connection and return how many; new ones are still taken."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut()
        return len(links)

    def refuse(self) -> None:
        """Reset every connection, and each new one as soon as it is made."""
        self._refusing = True
        self.cut()

    def half_close(self, toward: Side = "client") -> None:
        """Tell one side that the other will send no more; the opposite direction stays open."""
        with self._lock:
            links = list(self._links)
        for link in links:
            try:
                getattr(link, toward).shutdown(socket.SHUT_WR)
            except OSError:
                continue  # this end is gone already

    def lose_next_reply(self, containing: bytes = b"") -> threading.Event:
        """Forward the next request that contains these bytes, swallow its reply, cut.

        The event is set when the whole reply was swallowed: the server has done the work.
        """
        lost = threading.Event()

        def arm(link: _Link, request: bytes) -> bool:
            if containing in request:
                link.losing_reply = lost
                self._armed = None
            return True

        self._armed = arm
        return lost

    def lose_next_request(self, containing: bytes = b"") -> threading.Event:
        """Cut instead of forwarding the next request that contains these bytes.

        The event is set when that happened: the server has never seen the request.
        """
        lost = threading.Event()

        def drop(link: _Link, request: bytes) -> bool:
            if containing not in request:
                return True
            self._armed = None
            link.cut()
            lost.set()
            return False

        self._armed = drop
        return lost

    def heal(self) -> None:
        """End every fault."""
        self._delay_seconds = 0.0
        self._refusing = False
        self._armed = None
        self._flowing.set()

    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._links)

    def close(self) -> None:
        """Cut everything and stop listening."""
        self._closed = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # macOS: a listener is not connected; closing it is enough there
        self._listener.close()
        self.heal()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- forwarding --------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(self._target, timeout=30)
            except OSError:
                client.close()
                continue
            self._serve(_Link(client, server))

    def _serve(self, link: _Link) -> None:
        for end in (link.client, link.server):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._links.add(link)
        if self._refusing:
            link.cut()
        pumps = [
            threading.Thread(target=pump, args=(link,), name="proxy-pump", daemon=True)
            for pump in (self._pump_requests, self._pump_replies)
        ]
        for pump in pumps:
            pump.start()
        threading.Thread(target=self._bury, args=(link, pumps), daemon=True).start()

    def _bury(self, link: _Link, pumps: list[threading.Thread]) -> None:
        for pump in pumps:
            pump.join()
        with self._lock:
            self._links.discard(link)
        link.close()

    def _pump_requests(self, link: _Link) -> None:
        try:
            while request := link.client.recv(CHUNK_BYTES):
                self._hold_back()
                with self._lock:  # a fault that is armed once strikes once
                    forward = self._armed is None or self._armed(link, request)
                if forward:
                    link.server.sendall(request)
            if not link.is_cut:
                link.server.shutdown(socket.SHUT_WR)
        except OSError:
            link.cut()

    def _pump_replies(self, link: _Link) -> None:
        try:
            while reply := link.server.recv(CHUNK_BYTES):
                self._hold_back()
                if link.losing_reply is not None:
                    _read_until_quiet(link.server)
                    link.cut()
                    link.losing_reply.set()
                    return
                link.client.sendall(reply)
            if not link.is_cut:
                link.client.shutdown(socket.SHUT_WR)
        except OSError:
            link.cut()

    def _hold_back(self) -> None:
        if self._delay_seconds:
            time.sleep(self._delay_seconds)
        self._flowing.wait()


def _read_until_quiet(server: socket.socket) -> None:
    server.settimeout(QUIET_SECONDS)
    try:
        while server.recv(CHUNK_BYTES):
            pass
    except TimeoutError:
        return
