"""The server: users, and what they can be sent, asked and told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from ssl import SSLContext
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, Literal

from .admission import Proxies
from .auth import Identify, S, cid_of
from .channel import Channel
from .codes import Reason, check_reason
from .connection import ServerHub, WseConnection
from .devices import DeviceInfo
from .drain import see_off
from .errors import HandlerFailed, IdentifyMissing, NoSuchClient
from .gate import Gate
from .handler import check_takes, end_tasks
from .identity import WseIdentity
from .limits import Limits
from .outbox import Parcel
from .pings import warn_of_pings
from .procedures import Procedures
from .protocol import Protocol
from .protocol5 import DEFAULTS
from .rates import UserRates
from .recipients import To
from .registry import Registry
from .runner import run_until_signal
from .sessions import Sessions
from .signals import Emitter
from .sigterm import drain_at_sigterm
from .stats import LoopLag, Stats
from .transports.base import Pages
from .when import ServerSignals
from .workers import warn_of_workers

if TYPE_CHECKING:
    from aiohttp import web

    from .transports.asgi import AsgiApplication
    from .transports.tcp import Listener

__all__ = ["WseServer"]

logger = logging.getLogger("wse.server")


class WseServer(Generic[S]):
    """Users with several devices each, over WebSocket.

    Args:
        identify: Says who a connection is: plain or async, takes an `Attempt` and returns
            `attempt.accept(cid, welcome)` or `attempt.refuse()`. None, and any exception, refuses.
        conn_per_user: How many devices a user may have at once.
        when_full: What happens to one more: "evict" lets another one go for it, with
            `wse.clients-concurrency`: the one that is away the longest, else the oldest; "refuse"
            keeps the newcomer out, with `wse.seats-full`. A device that connects again replaces
            itself, with `wse.replaced`.
        protocols: The protocols spoken, the most preferred first; when none are given those of
            protocol 5, `wse.5.json` and `wse.5.msgpack`, and the one of the JavaScript package.
        limits: What a peer may cost.
        timeout: Seconds that a call to a device waits, unless it says otherwise.
        state: Makes each device's `conn.state` when it is first asked for.
        origins: Pages that may connect besides those of the server's own host, such as
            `https://app.example.com`; `*` for all. Clients that are no browsers send no Origin
            and are not concerned.
        proxies: Whose word about a peer's address is taken; nobody's when None.

    Raises:
        IdentifyMissing: `identify` cannot be called.
        TypeError: `identify` does not take one argument, or `origins` or `proxies` is of another
            kind.
        ValueError: `conn_per_user` below 1, an unknown `when_full`, two protocols of one name, or
            an origin that is none.
    """

    def __init__(
        self,
        identify: Identify,
        *,
        conn_per_user: int = 1,
        when_full: Literal["evict", "refuse"] = "evict",
        protocols: Sequence[Protocol] = (),
        limits: Limits = Limits(),  # noqa: B008 - frozen
        timeout: float = 30.0,
        state: Callable[[], S] = SimpleNamespace,  # type: ignore[assignment]
        origins: Sequence[str] = (),
        proxies: Proxies | None = None,
    ) -> None:
        if not callable(identify):
            raise IdentifyMissing(message="a server needs a function identify(attempt)")
        check_takes(identify, "(attempt)")
        if proxies is not None and not isinstance(proxies, Proxies):
            raise TypeError('proxies takes a Proxies, such as Proxies("10.0.0.0/8")')
        if when_full not in ("evict", "refuse"):
            raise ValueError('when_full is "evict" or "refuse"')
        self._refuses = when_full == "refuse"
        self.channel = Channel()
        """The messages that devices send: `@server.channel.on("hello")`."""
        self.procedures = Procedures()
        """The procedures that devices may call."""
        self.register = self.procedures.register
        """Offer a procedure: `@server.register("add")`; see `Procedures.register`."""
        self.unregister = self.procedures.unregister
        """Offer it no longer."""
        self.clients: Registry[S] = Registry(conn_per_user)
        """The users that are here, by cid."""
        self._emitter = Emitter(logger, limits)
        self._emitter.failed = self._handler_failed
        self.when: ServerSignals[S] = ServerSignals(self._emitter)
        """What happens: `@server.when.joined`."""
        self.limits = limits
        self._hub = ServerHub(
            channel=self.channel,
            procedures=self.procedures,
            limits=limits,
            timeout=timeout,
            logger=logger,
        )
        self.include = self._hub.include
        """Take in a module's own `Channel` and `Procedures`, registered without this server."""
        self._hub.protocols = tuple(protocols) or DEFAULTS
        self._hub.identify = identify
        self._hub.make_state = state
        self._hub.rates = UserRates(limits)
        self._loop_lag = LoopLag()
        self._listeners: set[Listener] = set()
        self._hub.has_seat = self._has_seat
        self._hub.seat = self._seat
        self._hub.unseat = self._unseat
        self._hub.sessions = self._sessions = Sessions(limits)
        self._hub.suspended = self.when.suspended.emit
        self._hub.resumed = self._resumed
        self._hub.ignored = self.when.ignored
        self._hub.report_error = self.when.error.emit
        self.acceptor: Gate[S] = Gate(self._hub, origins, proxies)
        """Takes the connections that carriers have opened."""

    # -- people ------------------------------------------------------------------------------

    def send(
        self,
        cid: str | int,
        type: str,
        payload: Any = None,
        *,
        to: To | None = None,
        keep: bool = True,
    ) -> None:
        """Send a message to every device of a user; never waits. From any thread.

        A user who is not here gets nothing.

        Args:
            cid: The user.
            type: The message type.
            payload: Its payload.
            to: Some of the devices only: `others(conn)`, `newest()` or `device("phone")`.
            keep: Whether to keep it for devices that are away; see `WseConnection.send`.

        Raises:
            TypeError: the payload cannot be encoded.
            ValueError: a type that begins with `~wse:`.
            MessageTooLarge: above `Limits.max_message_bytes`.
        """
        self._hub.run(self._send, cid_of(cid), self._hub.parcel(type, payload), to, keep)

    def broadcast(
        self,
        type: str,
        payload: Any = None,
        *,
        but: WseConnection[Any] | str | int | None = None,
        keep: bool = True,
    ) -> None:
        """Send a message to every device of everybody; never waits. From any thread.

        It is packed once for each protocol in use, however many it goes to.

        Args:
            type: The message type.
            payload: Its payload.
            but: Leave out one device, or one user.
            keep: Whether to keep it for devices that are away; see `WseConnection.send`.

        Raises:
            TypeError: the payload cannot be encoded.
            ValueError: a type that begins with `~wse:`.
            MessageTooLarge: above `Limits.max_message_bytes`.
        """
        if but is not None and not isinstance(but, WseConnection):
            but = cid_of(but)
        self._hub.run(self._broadcast, self._hub.parcel(type, payload), but, keep)

    async def call(
        self,
        cid: str | int,
        name: str,
        payload: Any = None,
        *,
        timeout: float | None = None,
        to: To | None = None,
    ) -> Any:
        """Call a procedure of a user's newest device, or of another; see `WseIdentity.call`.

        Raises:
            NoSuchClient: the user is not here, or has no such device.
        """
        client = self.clients.get(cid_of(cid))
        if client is None:
            raise NoSuchClient(message="the user is not here")
        return await client.call(name, payload, timeout=timeout, to=to)

    async def devices(self, cid: str | int) -> list[DeviceInfo]:
        """A user's devices, the longest connected first; none of one who is not here."""
        client = self.clients.get(cid_of(cid))
        return [] if client is None else [conn.info for conn in client.conns.values()]

    def drop_client(self, cid: str | int, reason: str = Reason.BY_SERVER) -> None:
        """Close all devices of a user; one who is not here is left alone. From any thread.

        Raises:
            ValueError: a reason of more than 123 bytes (RFC 6455 section 5.5).
        """
        check_reason(reason)
        self._hub.run(self._drop_client, cid_of(cid), reason)

    def _send(self, cid: str, parcel: Parcel, to: To | None, keep: bool) -> None:
        client = self.clients.get(cid)
        if client is not None:
            client.deliver(parcel, to, keep)

    def _broadcast(self, parcel: Parcel, but: WseConnection[Any] | str | None, keep: bool) -> None:
        wire, frame = None, b""
        for conn in tuple(self.clients.conns.values()):
            if conn is not but and (but is None or conn.cid != but):
                if conn.wire != wire:
                    wire, frame = conn.wire, parcel.frame(conn.wire)
                conn.enqueue(frame, keep=keep)

    def _drop_client(self, cid: str, reason: str) -> None:
        client = self.clients.get(cid)
        if client is not None:
            client.drop(reason)

    def stats(self) -> Stats:
        """Figures of this server, as they are now. Takes time for each device; from any thread."""
        counts = self._hub.counts
        conns = tuple(self.clients.conns.values())
        return Stats(
            users=len(self.clients),
            devices=len(conns),
            upgrading=sum(len(one.upgrading) for one in tuple(self._listeners)),
            strangers=self.acceptor.strangers_count,
            handlers=len(self._hub.tasks),
            waiting_messages=sum(len(conn._desk) for conn in conns),
            queued_bytes=sum(conn.queued_bytes for conn in conns),
            suspended=len(self._sessions),
            suspended_bytes=self._sessions.size,
            kept_messages=sum(conn.kept_messages for conn in conns),
            kept_bytes=sum(conn.kept_bytes for conn in conns),
            loop_lag_seconds=self._loop_lag.seconds,
            connections=counts.connections,
            refused=dict(counts.refused),
            closed=dict(counts.closed),
            resumed=counts.resumed,
            messages=counts.messages,
            calls=counts.calls,
            handler_errors=counts.handler_errors,
        )

    # -- connections -------------------------------------------------------------------------

    def _has_seat(self, conn: WseConnection[S], cid: str) -> bool:
        return not self._refuses or self.clients.has_seat(self.clients.get(cid), conn)

    def _seat(self, conn: WseConnection[S], cid: str) -> None:
        self.acceptor.identified(conn)
        client = self.clients.get(cid)
        joins = client is None
        if client is None:
            client = WseIdentity(self._hub, cid, conn.meta)
        before = None if joins else client.predecessor(conn)
        conn.client = client
        self.clients.seat(client, conn)
        if conn.session:
            self._sessions.add(conn)
        with self._emitter.together():
            if joins:
                self.when.joined.emit(client, client.meta)
            if before is not None:
                before.drop(Reason.REPLACED)
            for surplus in self.clients.surplus(client):
                surplus.drop(Reason.CLIENTS_CONCURRENCY)
            self.when.connected.emit(conn)

    def _resumed(self, conn: WseConnection[S], newcomer: WseConnection[S]) -> None:
        self.acceptor.identified(newcomer)
        self._hub.counts.resumed += 1
        self.when.resumed.emit(conn)

    def _unseat(self, conn: WseConnection[S], code: int, reason: str) -> None:
        self.acceptor.left(conn)
        client = conn.client
        if client is None:
            return
        leaves = self.clients.unseat(client, conn)
        self.when.disconnected.emit(conn, code, reason)
        if leaves:
            self._hub.rates.leave(client.cid, asyncio.get_running_loop().time())
            self.when.left.emit(client, code, reason)

    def _handler_failed(self, name: str, error: BaseException) -> None:
        self._hub.counts.handler_errors += 1
        failure = HandlerFailed({"event": name})
        failure.__cause__ = error
        self.when.error.emit(failure, None)

    # -- listening ---------------------------------------------------------------------------

    @asynccontextmanager
    async def listen(
        self,
        host: str = "127.0.0.1",
        port: int = 4200,
        *,
        unix: str | None = None,
        ssl: SSLContext | None = None,
        compression: bool = False,
        drain: float = 0.0,
        pages: Pages = MappingProxyType({}),
    ) -> AsyncIterator[Listener]:
        """Listen on a port of its own, while the context lasts; then stop, and `close`.

        Args:
            host: The address to bind; "0.0.0.0" or "::" for all.
            port: The port; 0 takes a free one, see `Listener.port`.
            unix: The path of a Unix socket, instead of host and port.
            ssl: Serve TLS with this context.
            compression: Agree to permessage-deflate (RFC 7692) with clients that offer it.
            drain: Seconds over which devices are sent away at the end; see `close`.
            pages: What plain HTTP GET requests are answered with, by path: a function that makes
                a `Page`.

        Raises:
            OSError: the address cannot be bound.
        """
        from .transports import tcp

        self._hub.bind()
        listener = await tcp.listen(
            self.acceptor, host, port, unix=unix, ssl=ssl, compression=compression, pages=pages
        )
        if ssl is None and unix is None and not self.acceptor.is_behind_proxies:
            _warn_of_listeners(host)
        self._listeners.add(listener)
        self._loop_lag.start()
        try:
            yield listener
        finally:
            listener.stop()
            await self.close(drain=drain)
            await listener.wait_closed()
            self._listeners.remove(listener)
            self._loop_lag.stop()

    async def close(self, *, drain: float = 0.0) -> None:
        """Send everybody away with 1012 `wse.server-closing`, and wait until they are gone.

        Nobody is let in meanwhile. Devices go one after the other, spread over `drain` seconds, so
        that they do not come back all at once. One that has calls under way, in either direction,
        goes when they have ended; until then nothing new of it is heard. What is left at the end
        of that time goes at once, and its calls end with `CallDisconnected`. Another `close`
        without `drain` ends one that is draining. May be cancelled, and then sends away nobody
        else.

        A handler that awaits this is itself under way, so that its device stays until the end of
        `drain`, and a call that it serves is not answered. Where that matters, it starts a task.

        Takes at most `drain` and `Limits.close_timeout` seconds. Handlers that still run get as
        long as the latter to end, those of messages after their cancellation, those of events
        before it.

        Args:
            drain: Seconds.
        """
        with self.acceptor.shut():
            strangers = tuple(self.acceptor.strangers)
            for stranger in strangers:
                stranger.drop(Reason.SERVER_CLOSING)
            conns = tuple(self.clients.conns.values())
            if drain > 0:
                await see_off(conns, drain)
            for conn in conns:
                conn.drop(Reason.SERVER_CLOSING)
            await asyncio.gather(*(conn.wait_closed() for conn in (*strangers, *conns)))
            await end_tasks(self._hub.tasks | self._emitter.tasks, self.limits.close_timeout)

    # -- within a web framework --------------------------------------------------------------

    def asgi(self, *, drain: float = 5.0) -> AsgiApplication:
        """This server as an ASGI application, for a route of Starlette, FastAPI and others.

            live = server.asgi()
            app.router.routes += [WebSocketRoute("/ws", live), Route("/ws", live)]

        At SIGTERM the devices are sent away before the web server closes their connections, where
        it lets us; see `lifespan`.

        Args:
            drain: Seconds over which they are; see `close`.
        """
        from .transports.asgi import AsgiApplication

        warn_of_workers()
        return AsgiApplication(
            self.acceptor,
            opening=lambda: self._carried(drain),
            lifespan=lambda: self.lifespan(drain=drain),
        )

    @asynccontextmanager
    async def lifespan(self, app: Any = None, *, drain: float = 5.0) -> AsyncIterator[None]:
        """Live and end with a web application: `FastAPI(lifespan=server.lifespan)`.

        At its end, and at SIGTERM before it, the devices are sent away.

        Args:
            app: The application, which frameworks give.
            drain: Seconds over which devices are sent away; see `close`.
        """
        self._hub.bind()
        self._loop_lag.start()
        self._carried(drain)
        try:
            yield
        finally:
            await self.close(drain=drain)
            self._loop_lag.stop()

    def aiohttp_handler(
        self, *, drain: float = 5.0
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """This server as a handler of aiohttp: `app.router.add_get("/ws", ...)`.

        At SIGTERM the devices are sent away before aiohttp hears of it. Let `close` be one of
        `app.on_shutdown` for all other ends: aiohttp waits for connections otherwise.

        Args:
            drain: Seconds over which they are; see `close`.
        """
        from .transports.aiohttp import handler

        warn_of_workers()
        return handler(self.acceptor, opening=lambda: self._carried(drain))

    def _carried(self, drain: float) -> None:
        """A web server runs this."""
        drain_at_sigterm(self._leave, drain)
        warn_of_pings()

    async def _leave(self, *, drain: float) -> None:
        """The process ends: who comes back meanwhile is not let in."""
        self.acceptor.shut_for_good()
        await self.close(drain=drain)

    # -- by itself ---------------------------------------------------------------------------

    def run(
        self,
        host: str = "127.0.0.1",
        port: int = 4200,
        *,
        unix: str | None = None,
        ssl: SSLContext | None = None,
        compression: bool = False,
        drain: float = 5.0,
        pages: Pages = MappingProxyType({}),
    ) -> None:
        """Listen until SIGINT or SIGTERM, on uvloop where it is installed; see `listen`.

        SIGTERM drains; SIGINT, Ctrl-C at a terminal, does not, and neither does a second signal.
        """
        where = unix or f"{host}, port {port}"
        run_until_signal(
            self.listen(
                host,
                port,
                unix=unix,
                ssl=ssl,
                compression=compression,
                drain=drain,
                pages=pages,
            ),
            entered=lambda: logger.info("listening on %s", where),
            hurry=self.close,
        )


def _warn_of_listeners(host: str) -> None:
    """Say it where a server without TLS can be reached from other machines."""
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        logger.warning(
            "reachable from other machines without TLS: whoever is on the way can read and change "
            "everything; give ssl= (wse serve: --tls-cert), or proxies= where a proxy has the "
            "certificate"
        )
