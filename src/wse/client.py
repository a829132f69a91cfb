"""The client: one device of a user, which comes back by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Self, TypeVar

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from .backoff import Backoff
from .channel import Channel
from .codes import CloseCode, Reason, Status, check_reason, comes_back
from .errors import (
    AlreadyConnected,
    ConnectError,
    ConnectionFailed,
    HandlerFailed,
    InvalidSolver,
    NotConnected,
    OutboxFull,
    ProtocolViolation,
    WseError,
)
from .handler import is_awaitable
from .limits import Limits
from .link import ClientHub, Link
from .messages import Terms
from .procedures import Procedures
from .protocol import DEFAULT, Protocol
from .protocol5 import JSON5
from .signals import Emitter
from .stages import Stage
from .transports.base import Dialer
from .when import ClientSignals

__all__ = ["WseClient"]

F = TypeVar("F", bound=Callable[[Any], Any])

logger = logging.getLogger("wse.client")

_LONGEST_NAME = 128


@dataclass(slots=True)
class _Absence:
    """A session whose connection is lost, and that may go on."""

    link: Link
    end: tuple[int, str]
    """How the last connection ended; nobody was told."""
    timer: asyncio.TimerHandle
    is_over: bool = False
    """Whether it has waited in vain."""


class WseClient:
    """One device of a user, connected to a server of Python or JavaScript.

    Args:
        url: `ws://` or `wss://`.
        timeout: Seconds that a call waits unless it says otherwise, and that `connect` takes at
            most.
        reconnect: Come back when the connection is lost, until refused or closed; `connect` then
            also keeps trying, for its `timeout`.
        protocols: How messages may be packed, offered to the server, which selects one; when none
            are given `wse.5.json`, and the one of the JavaScript package for servers of that.
        device: Which device of the user this is, a name of 1 to 128 characters that should stay
            the same; the server draws one when None, for as long as this object lives.
        headers: Sent with the HTTP upgrade.
        backoff: When to come back.
        limits: What the server may cost.
        ssl: The context for `wss://`; the system's when None.
        unix: The path of a Unix socket to connect to, whatever the URL's host.
        compression: Offer permessage-deflate (RFC 7692).
        dial: Another way to reach the server than TCP; `ssl`, `unix` and `compression` are TCP's.

    Raises:
        ValueError: no WebSocket URL, or no name of a device.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        reconnect: bool = False,
        protocols: Sequence[Protocol] = (),
        device: str | None = None,
        headers: Mapping[str, str] | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
        limits: Limits = Limits(),  # noqa: B008 - frozen
        ssl: SSLContext | None = None,
        unix: str | None = None,
        compression: bool = False,
        dial: Dialer | None = None,
    ) -> None:
        self.url = _checked(url)
        self._timeout = timeout
        self.reconnect = reconnect
        self.headers = dict(headers or {})
        self.channel = Channel(takes=1)
        """The messages that the server sends: `@client.channel.on("hello")`."""
        self.procedures = Procedures(takes=1)
        """The procedures that the server may call."""
        self.register = self.procedures.register
        """Offer a procedure: `@client.register("ping")`; see `Procedures.register`."""
        self.unregister = self.procedures.unregister
        """Offer it no longer."""
        self._emitter = Emitter(logger, limits)
        self._emitter.failed = self._handler_failed
        self.when = ClientSignals(self._emitter)
        """What happens: `@client.when.ready`."""
        self.status = Status.IDLE
        """Where it stands."""
        if device is not None and not 0 < len(device) <= _LONGEST_NAME:
            raise ValueError(f"the name of a device has 1 to {_LONGEST_NAME} characters")
        self.device = device
        """Which device of the user this is; None until somebody has said."""
        self._protocols = {
            protocol.name: protocol for protocol in tuple(protocols) or (JSON5, DEFAULT)
        }
        self._backoff = backoff
        self._limits = limits
        if dial is None:
            from .transports.tcp import TcpDialer

            dial = TcpDialer(ssl=ssl, unix=unix, compression=compression)
        self._dial = dial
        self._hub = ClientHub(
            channel=self.channel,
            procedures=self.procedures,
            limits=limits,
            timeout=timeout,
            logger=logger,
        )
        self.include = self._hub.include
        """Take in a module's own `Channel(takes=1)` and `Procedures(takes=1)`."""
        self._hub.comes_back = lambda: self.reconnect
        self._hub.claim = self._claim
        self._hub.welcomed = self._welcomed
        self._hub.resumed = self._resumed
        self._hub.suspended = self._suspended
        self._hub.ended = self._lost
        self._hub.ignored = self.when.ignored
        self._hub.report_error = self.when.error.emit
        self._changed = asyncio.Event()
        self._who: tuple[Any, Any] = (None, None)
        """Identity and meta."""
        self._link: Link | None = None
        self._absence: _Absence | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._work: asyncio.Task[Any] | None = None
        self._ready_since = 0.0
        self._attempts = 0

    def __repr__(self) -> str:
        return f"<WseClient {self.status}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- connecting --------------------------------------------------------------------------

    async def connect(self, identity: Any = None, meta: Any = None) -> Any:
        """Open the connection and prove who this is. Cancelling gives up.

        Args:
            identity: What the server's `identify` is given; a plain or async function is asked
                for it on every attempt, so that a token is fresh when the client comes back.
            meta: What the device says about itself.

        Returns:
            The payload of the welcome.

        Raises:
            NotAuthorized: the server refused.
            SolverMissing: the server asked a challenge and there is no solver.
            ConnectionFailed: the server could not be reached, or closed before the welcome.
            AlreadyConnected: it is connected or connecting.
            Exception: what the identity function or the solver raised.
        """
        if self._work is not None or self.status not in (Status.IDLE, Status.OFFLINE):
            raise AlreadyConnected(message=f"the client is {self.status}")
        self._who = identity, {} if meta is None else meta
        return await self._begin(Status.CONNECTING)

    async def jump(self, url: str) -> Any:
        """Leave for another server: close with 4000 `jump` and connect there as the same user.

        Returns:
            The payload of the other server's welcome.

        Raises:
            NotConnected: `connect` was never called.
            ValueError: no WebSocket URL.
            ConnectError: as `connect` does.
        """
        if self.status is Status.IDLE:
            raise NotConnected
        self.url = _checked(url)
        with self._emitter.together():
            self._stop(Reason.JUMP.close_code, Reason.JUMP)
            reaching = self._begin(Status.RE_CONNECTING)
        return await reaching

    async def close(self, reason: str = Reason.BY_CLIENT) -> None:
        """Close with code 1000, or give up coming back; takes at most `Limits.close_timeout`.

        Raises:
            ValueError: a reason of more than 123 bytes (RFC 6455 section 5.5).
        """
        check_reason(reason)
        self._stop(CloseCode.NORMAL, reason)
        await self._all_left()

    async def wait_closed(self) -> None:
        """Wait until the client is offline and will not come back by itself.

        It returns at once when it was never connected. May be cancelled.
        """
        while self.status not in (Status.IDLE, Status.OFFLINE):
            self._changed.clear()
            await self._changed.wait()

    def challenge(self, solver: F) -> F:
        """Answer the server's challenges with this function, plain or async; a decorator.

        It is given the quest and returns the answer.

        Raises:
            InvalidSolver: it cannot be called.
        """
        if not callable(solver):
            raise InvalidSolver
        self._hub.solver = solver
        return solver

    # -- talking -----------------------------------------------------------------------------

    def send(self, type: str, payload: Any = None, *, keep: bool = True) -> None:
        """Send a message; never waits. From any thread.

        While the connection is lost and the session waits, it is sent with the next connection.

        Args:
            type: The message type.
            payload: Its payload.
            keep: Whether to send it again where it may have been lost. Not for what is soon
                outdated: cursors, typing, positions.

        Raises:
            NotConnected: the client is not ready.
            OutboxFull: the connection is lost, and no more is kept for the next.
            TypeError: the payload cannot be encoded.
            ValueError: a type that begins with `~wse:`.
            MessageTooLarge: above `Limits.max_message_bytes`.
        """
        self._ready_link()._send(type, payload, keep=keep)

    async def call(self, name: str, payload: Any = None, *, timeout: float | None = None) -> Any:
        """Call a procedure of the server and wait for its result.

        Cancelling, or the timeout, stops the wait, and with a server of protocol 5 the procedure.

        Args:
            name: As the server registered it.
            payload: What the procedure is given.
            timeout: Seconds; the client's `timeout` when None.

        Raises:
            NotConnected: the client is not ready.
            OutboxFull: the connection is lost, and no more is kept for the next.
            CallTimeout: no answer in time.
            CallDisconnected: the connection ended meanwhile.
            CallNotRegistered: the server has no such procedure.
            CallFailed: the procedure raised.
            WseError: the procedure raised this.
        """
        return await self._ready_link()._call(name, payload, timeout)

    def _ready_link(self) -> Link:
        absence = self._absence  # once: another thread may be sending
        if absence is not None and not absence.is_over:
            if absence.link.is_full:
                raise OutboxFull
            return absence.link
        link = self._link
        if link is None or link.stage is not Stage.READY:
            raise NotConnected(message=f"the client is {self.status}: await connect() first")
        return link

    # -- inside ------------------------------------------------------------------------------

    def _set(self, status: Status) -> None:
        if status is not self.status:
            self.status = status
            self._changed.set()
            self.when.updated.emit(status)

    def _stop(self, code: int, reason: str) -> None:
        """End what goes on: an attempt, a wait, or the connection."""
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
        link, self._link = self._link, None
        was_away = self._lose_session()
        if link is not None:
            link.end(code, reason)
        if link is not None or was_away:
            self._tell_closed(code, reason)
        elif self.status is not Status.IDLE:
            self._set(Status.OFFLINE)

    async def _all_left(self) -> None:
        """Wait until nothing is left of the connections that have ended."""
        if self._leaving:
            await asyncio.wait(tuple(self._leaving))

    def _begin(self, status: Status) -> Coroutine[Any, Any, Any]:
        """Connect, as a task of our own; told once `close` and `jump` can cancel it."""
        self._attempts = 0
        welcome: list[Any] = []  # not the task's result, which asyncio's debug mode logs
        with self._emitter.together():
            self._set(status)
            work = asyncio.get_running_loop().create_task(self._first(welcome.append))
            self._work = work
        return self._reach(work, welcome)

    async def _reach(self, work: asyncio.Task[None], welcome: list[Any]) -> Any:
        """What comes of it."""
        try:
            await work
            return welcome[0]
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise ConnectionFailed(message="closed while connecting", temporary=False) from None
        except ConnectError:
            await self._all_left()
            raise
        finally:
            if self._work is work:
                self._work = None
                if self.status is not Status.READY:
                    self._set(Status.OFFLINE)

    async def _first(self, tell: Callable[[Any], None]) -> None:
        limit = asyncio.timeout(self._timeout)
        failure = ConnectionFailed(message="no welcome in time")
        try:
            async with limit:
                while True:
                    try:
                        tell(await self._attempt())
                    except ConnectionFailed as error:
                        failure = error
                        if not (self.reconnect and error.temporary):
                            raise
                        await self._wait(error)
                    else:
                        return
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise failure from error

    async def _again(self, after: float | None) -> None:
        """Come back, until welcomed, refused or closed.

        Args:
            after: Seconds after which the server wants it back.
        """
        failure: WseError | None = None
        try:
            while True:
                await self._wait(failure, after if failure is None else None)
                try:
                    await self._attempt()
                except ConnectError as error:
                    failure = error
                    if not (isinstance(error, ConnectionFailed) and error.temporary):
                        raise
                except Exception as error:
                    failure = self._hub.failed("an attempt to come back", error, event="connect")
                else:
                    return
        except ConnectError as error:
            logger.warning("does not come back: %s", error)
            self._work = None
            with self._emitter.together():
                self.when.error.emit(error)
                if (absence := self._absence) is not None:
                    self._lose_session()
                    self.when.closed.emit(*absence.end)
                self._set(Status.OFFLINE)
        finally:
            if self._work is asyncio.current_task():
                self._work = None

    async def _wait(self, failure: WseError | None, after: float | None = None) -> None:
        """Until the next attempt: after so many seconds, or what the backoff says."""
        least = 0.0
        if failure is not None:
            logger.info("could not connect: %s", failure)
            self.when.error.emit(failure)
            self._attempts += 1
            if isinstance(failure, ConnectionFailed):
                least = failure.retry_after
        if self.status is Status.OFFLINE:
            self._set(Status.RE_CONNECTING)
        if after is None:
            after = max(least, self._backoff.delay(self._attempts))
        await asyncio.sleep(after)

    async def _attempt(self) -> Any:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                identity, meta = self._who
                if callable(identity):
                    identity = identity()
                    if is_awaitable(identity):
                        identity = await identity
                transport, selected = await self._dial(
                    self.url,
                    subprotocols=tuple(self._protocols),
                    headers=self.headers,
                    limits=self._limits,
                )
                # A server that selects none knows the oldest at best.
                protocol = self._protocols[selected or next(reversed(self._protocols))]
                link = self._link = Link(self._hub, transport, protocol)
                try:
                    self.when.connected.emit()
                    if self._link is not link:  # a handler has closed, or jumped
                        await asyncio.sleep(0)  # where this task is cancelled
                    absence, away = self._absence, None
                    if absence is not None and absence.link.is_alive:
                        away = absence.link if absence.link.wire == link.wire else None
                    link.greet(identity, meta, self.device, away)
                    return await link.welcome
                except BaseException:
                    link.welcome.cancel()
                    if link.is_alive:
                        link.abandon()
                    raise
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ConnectionFailed(message="no welcome in time") from error

    def _claim(self, link: Link, terms: Terms) -> Link | None:
        """A server welcomes this link: the session that waits goes on with it, or is over."""
        self.device = terms.device
        absence = self._absence
        if terms.resumed:
            if link.asked != terms.session:
                raise ProtocolViolation(message="nobody asked for this session")
            if absence is not None and not absence.is_over and absence.link.goes_on(link, terms):
                absence.timer.cancel()
                self._link, self._absence = absence.link, None
                return absence.link
        self._lose_session()
        if terms.resumed:
            link.fail(ConnectionFailed(message="it waited too long, or kept too little"))
        return None

    def _welcomed(self, welcome: Any) -> None:
        self._ready()
        self.when.ready.emit(welcome)

    def _resumed(self, welcome: Any) -> None:
        self._ready()
        self.when.resumed.emit(welcome)

    def _ready(self) -> None:
        self._work = None
        self._ready_since = asyncio.get_running_loop().time()
        self._set(Status.READY)

    def _suspended(self, link: Link, code: int, reason: str) -> None:
        assert link.terms is not None
        self._see_out(link)
        timer = asyncio.get_running_loop().call_later(link.terms.window, self._wait_no_longer)
        self._link, self._absence = None, _Absence(link, (code, reason), timer)
        with self._emitter.together():
            self.when.suspended.emit(code, reason)
            self._come_back(link.after)

    def _lose_session(self) -> bool:
        """The session that waits is over; whether there was one."""
        absence, self._absence = self._absence, None
        if absence is None:
            return False
        if not absence.is_over:
            absence.timer.cancel()
            count = absence.link.unacked
            absence.link.lose(*absence.end)
            self.when.lost.emit(count)
        return True

    def _wait_no_longer(self) -> None:
        """The server keeps the session no longer. What has ended is told when that is final."""
        absence = self._absence
        if absence is not None:
            with self._emitter.together():
                self._lose_session()
                absence.is_over = True
                self._absence = absence

    def _lost(self, link: Link, code: int, reason: str) -> None:
        self._see_out(link)
        if link is not self._link:
            return
        self._link = None
        if self._absence is not None:  # this was an attempt to come back
            self._absence.end = code, reason
            return
        with self._emitter.together():
            self._tell_closed(code, reason)
            if self._work is None and self.reconnect and comes_back(code):
                self._come_back(link.after)

    def _see_out(self, link: Link) -> None:
        """The socket of a connection that has ended may still be there: `close` waits for it."""
        leaving = asyncio.get_running_loop().create_task(link.transport_closed())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _come_back(self, after: float | None) -> None:
        loop = asyncio.get_running_loop()
        stayed = loop.time() - self._ready_since
        self._attempts = 0 if stayed > self._backoff.cap else self._attempts + 1
        self._set(Status.RE_CONNECTING)
        self._work = loop.create_task(self._again(after))

    def _tell_closed(self, code: int, reason: str) -> None:
        """Told when it is so: a handler of `closed` may connect again."""
        with self._emitter.together():
            self.when.closed.emit(code, reason)
            self._set(Status.OFFLINE)

    def _handler_failed(self, name: str, error: BaseException) -> None:
        failure = HandlerFailed({"event": name})
        failure.__cause__ = error
        self.when.error.emit(failure)


def _checked(url: str) -> str:
    try:
        parse_uri(url)
    except InvalidURI as error:
        raise ValueError(f"no WebSocket URL: {error.msg}") from None
    except ValueError:  # which quotes a part of it, perhaps of a password
        raise ValueError("no WebSocket URL: a part of it cannot be read") from None
    return url
