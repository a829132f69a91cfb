"""One device of a user, at the server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, cast

from .auth import Attempt, Decision, Identify, S
from .codes import CloseCode, Reason, check_reason, comes_back
from .devices import DeviceInfo
from .endpoint import Endpoint
from .errors import (
    ChallengeRoundsExceeded,
    InvalidPayload,
    NoSuchClient,
    ProtocolViolation,
    WseError,
)
from .handler import is_awaitable, start_task
from .heartbeat import Heartbeat, Pulse
from .hub import Hub
from .messages import Bye, Challenge, Failure, Hi, Message, Result, Resume, Terms, Welcome
from .outbox import Parcel
from .protocol import Protocol, decode_checked
from .rates import Bucket, UserRates
from .ring import Ring
from .sessions import Sessions, Tombstone
from .signals import Signal
from .stages import METERED, SERVER, Action, Stage
from .transports.base import Handshake, Transport

if TYPE_CHECKING:
    from .identity import WseIdentity

__all__ = ["ServerHub", "WseConnection"]

_OPEN = (Stage.READY, Stage.LEAVING, Stage.SUSPENDED)


class ServerHub(Hub):
    """What all devices of a server share, and what they tell it."""

    protocols: tuple[Protocol, ...]
    identify: Identify
    make_state: Callable[[], Any]
    rates: UserRates
    has_seat: Callable[[WseConnection[Any], str], bool]
    """Whether a device may be one of this user's."""
    seat: Callable[[WseConnection[Any], str], None]
    """A device is accepted as one of this user's."""
    unseat: Callable[[WseConnection[Any], int, str], None]
    """A device has ended, seated or not."""
    sessions: Sessions
    suspended: Callable[[WseConnection[Any], int, str], None]
    """The connection of a device is lost, and its session waits."""
    resumed: Callable[[WseConnection[Any], WseConnection[Any]], None]
    """A device is back, with the transport of the second."""
    ignored: Signal[[WseConnection[Any], str, Any]]
    report_error: Callable[[WseError, WseConnection[Any]], None]

    def parcel(self, type: str, payload: Any) -> Parcel:
        """One message for many devices, packed at once for the most preferred protocol.

        When another thread asks, it is packed for all of them.

        Raises:
            ValueError: a type that begins with `~wse:`.
            TypeError: the payload cannot be encoded.
            MessageTooLarge: it is above the limit.
        """
        parcel = Parcel(type, payload, self.limits.max_message_bytes)
        for protocol in self.protocols if self.elsewhere else self.protocols[:1]:
            parcel.data(protocol)
        return parcel


class WseConnection(Endpoint, Generic[S]):
    """One device of a user: send to it, call it, drop it.

    Handlers get it as their first argument. It outlasts its WebSocket where the device's client
    keeps sessions: while the device is away, what is sent to it is kept. Its methods may be used
    after it has ended: what is sent then goes nowhere.
    """

    gives_itself = True

    __slots__ = (
        "__weakref__",
        "_answer",
        "_buckets",
        "_device",
        "_handshake",
        "_identifying",
        "_last_seen",
        "_resume",
        "_rounds",
        "_since",
        "_state",
        "_timer",
        "client",
        "conn_id",
        "context",
        "meta",
        "remote_addr",
        "session",
    )

    def __init__(
        self, hub: ServerHub, transport: Transport, protocol: Protocol, handshake: Handshake
    ) -> None:
        limits = hub.limits
        metered = limits.messages_per_second or limits.user_messages_per_second
        super().__init__(hub, transport, protocol, METERED if metered else SERVER)
        self.conn_id: str = secrets.token_hex(16)
        """Its id: 128 random bits, hexadecimal."""
        self.client: WseIdentity | None = None
        """The user it belongs to; None before it is accepted."""
        self.meta: Any = {}
        """What the device said about itself."""
        self.remote_addr: str | None = handshake.remote_addr
        """Its IP address; None on a Unix socket."""
        self.context: Any = handshake.context
        """What a web framework has of the connection: the ASGI scope, so `context["app"].state`, or
        aiohttp's `web.Request`. None elsewhere."""
        self.session = ""
        """Names its session to its client; "" where the client keeps none."""
        self._device: str | None = None
        self._since = self._last_seen = handshake.opened
        self._resume: Resume | None = None
        self._handshake: Handshake | None = handshake
        self._identifying: asyncio.Task[Any] | None = None
        self._answer: asyncio.Future[Any] | None = None
        self._rounds = 0
        self._buckets: tuple[Bucket, ...] = ()
        self._state: S
        deadline = handshake.opened + limits.authentication_timeout
        self._timer: asyncio.TimerHandle | None = hub.bind().call_at(deadline, self._too_late)

    def __repr__(self) -> str:
        return f"<WseConnection {self.conn_id} {self.stage.name}>"

    @property
    def cid(self) -> str:
        """The address of the user it belongs to; "" before it is accepted."""
        return self.client.cid if self.client is not None else ""

    @property
    def device(self) -> str:
        """Which of the user's devices it is: the name that its client gave, or its `conn_id`."""
        return self._device or self.conn_id

    @property
    def is_open(self) -> bool:
        """Whether it is welcomed and has not ended; it may be away."""
        return self.stage in _OPEN

    @property
    def is_suspended(self) -> bool:
        """Whether its connection is lost, and its session waits for it."""
        return self.stage is Stage.SUSPENDED

    @property
    def kept_messages(self) -> int:
        """Messages that were sent to it and that it has not acknowledged."""
        return 0 if self._ring is None else len(self._ring)

    @property
    def kept_bytes(self) -> int:
        """Their bytes."""
        return 0 if self._ring is None else self._ring.size

    @property
    def away_since(self) -> float:
        """The loop's time when its connection was lost; of one that `is_suspended`."""
        return self._last_seen

    @property
    def info(self) -> DeviceInfo:
        """What is known of it now."""
        assert self._hub.loop is not None
        now = self._hub.loop.time()
        return DeviceInfo(
            device=self.device,
            conn_id=self.conn_id,
            meta=self.meta,
            connected_for=now - self._since,
            silent_for=now - max(self._last_seen, self._transport.heard),
            remote_addr=self.remote_addr,
            suspended=self.is_suspended,
        )

    @property
    def state(self) -> S:
        """The application's own place for this device, made by the server's `state=`."""
        if not hasattr(self, "_state"):
            self._state = self._server.make_state()
        return self._state

    @state.setter
    def state(self, value: S) -> None:
        self._state = value

    def send(self, type: str, payload: Any = None, *, keep: bool = True) -> None:
        """Send a message to this device; never waits. From any thread.

        Args:
            type: The message type.
            payload: Its payload.
            keep: Whether to keep it for a device that is away, and to send it again where it may
                have been lost. Not for what is soon outdated: cursors, typing, positions.

        Raises:
            TypeError: the payload cannot be encoded.
            ValueError: a type that begins with `~wse:`.
            MessageTooLarge: above `Limits.max_message_bytes`.
        """
        self._send(type, payload, keep=keep)

    async def call(self, name: str, payload: Any = None, *, timeout: float | None = None) -> Any:
        """Call a procedure of this device and wait for its result. Cancelling stops the wait.

        Args:
            name: As the device registered it.
            payload: What the procedure is given.
            timeout: Seconds; the server's `timeout` when None.

        Raises:
            NoSuchClient: the device is gone.
            CallTimeout: no answer in time.
            CallDisconnected: the device went away meanwhile.
            CallNotRegistered: it has no such procedure.
            CallFailed: the procedure raised.
            WseError: the procedure raised this.
        """
        if not self.is_open:
            raise NoSuchClient({"conn_id": self.conn_id})
        return await self._call(name, payload, timeout)

    def drop(self, reason: str = Reason.BY_SERVER) -> None:
        """Close this device's connection; it stays away. From any thread.

        What was sent to it before leaves first. `disconnected` follows at once.

        Args:
            reason: Any text, which travels with code 1000; a `Reason` travels with its own code,
                by which the device may come back.

        Raises:
            ValueError: a reason of more than 123 bytes (RFC 6455 section 5.5), or one that is
                never sent.
        """
        check_reason(reason)
        code = reason.close_code if isinstance(reason, Reason) else CloseCode.NORMAL
        self._server.run(self._close, code, reason)

    def _retire(self, after: float) -> None:
        """Send it away with 1012 once its calls, both ways, have ended; hear nothing new.

        Args:
            after: Seconds after which it should come back, where it can be told.
        """
        if self.stage is Stage.READY:
            if self._ring is not None:
                self._post_uncounted(self._protocol5.bye(Reason.SERVER_CLOSING, after))
            self._enter(Stage.LEAVING)
            self._go_if_idle()

    def _go(self) -> None:
        """A session waits for its device: who closes the server may think better of it."""
        if self._ring is None or self._hub.limits.session_window is None:
            super()._go()
            return
        reason = Reason.SERVER_CLOSING
        self._outbox.flush(self._transport, forced=True)
        self._transport.close(reason.close_code, reason)
        self._suspend(reason.close_code, reason)

    async def wait_closed(self) -> None:
        """Wait until nothing of the connection is left."""
        await self._transport.wait_closed()

    def start(self) -> None:
        """Listen to the transport."""
        self._transport.start(self)

    # -- the handshake -----------------------------------------------------------------------

    @property
    def _server(self) -> ServerHub:
        return cast(ServerHub, self._hub)

    def _shake(self, action: Action, message: Message, size: int) -> None:
        match action, message:
            case Action.VIOLATION, _:
                self._violated(ProtocolViolation(message="a stranger's first message is no hi"))
            case Action.IDENTIFY, Hi():
                self._identify(message)
            case Action.ANSWER, Challenge():
                self._answered(message.payload)
            case Action.METER, _:
                self._meter(message, size)
            case Action.UNHANDLED, Hi():
                self._unhandled(self.protocol.types.hi, message.payload)
            case Action.UNHANDLED, Challenge():
                self._unhandled(self.protocol.types.challenge, message.payload)
            case Action.UNHANDLED, Welcome():
                self._unhandled(self.protocol.types.welcome, message.payload)

    def _identify(self, hi: Hi) -> None:
        try:
            said = self.protocol.read_hi(hi)
        except ProtocolViolation as error:
            self._violated(error)
            return
        identity, self.meta = said.identity, said.meta
        self._device, self._resume = said.device, said.resume
        self._enter(Stage.IDENTIFYING)
        handshake, self._handshake = self._handshake, None
        assert handshake is not None
        assert self._hub.loop is not None
        attempt = Attempt(
            self.conn_id, identity, self.meta, said.device, handshake, self._challenge
        )
        try:
            outcome = self._server.identify(attempt)
        except Exception as error:
            self._refuse(error)
            return
        if is_awaitable(outcome):
            task = start_task(self._hub.loop, self._decide_later(outcome))
            if not task.done():
                self._identifying = task
                self._hub.hold(task)
                if isinstance(outcome, Coroutine):  # which a cancelled task may never start (3.11)
                    task.add_done_callback(lambda _: outcome.close())
        else:
            self._decide(outcome)

    async def _decide_later(self, outcome: Awaitable[object]) -> None:
        try:
            decision = await outcome
        except asyncio.CancelledError as error:
            if self.stage is not Stage.CLOSED:
                self._refuse(error)
            raise
        except Exception as error:
            self._refuse(error)
        else:
            self._decide(decision)

    def _decide(self, decision: object) -> None:
        self._identifying = None
        if self.stage is Stage.CLOSED:
            return
        if not isinstance(decision, Decision):
            kind = type(decision).__name__
            wanted = "return attempt.accept(...) or attempt.refuse()"
            self._refuse(TypeError(f"identify returned {kind}: {wanted}"))
        elif not decision.cid:
            self._hub.logger.info("%r is refused", self)
            self.drop(Reason.NOT_AUTHORIZED)
        else:
            self._welcome(decision)

    def _refuse(self, error: BaseException) -> None:
        self._identifying = None
        self._hub.counts.handler_errors += 1
        self._hub.logger.error("%r is refused, identify failed", self, exc_info=error)
        self.drop(Reason.NOT_AUTHORIZED)

    def _welcome(self, decision: Decision) -> None:
        resume, self._resume = self._resume, None
        found = None
        if resume is not None:
            found = self._server.sessions.find(resume.session, decision.cid)
        if isinstance(found, Tombstone):
            self._close(found.code, found.reason)
            return
        try:
            if found is not None and resume is not None:
                if found._goes_on(self, resume.received, decision.welcome):
                    return
                self._device = self._device or found.device
            if not self._server.has_seat(self, decision.cid):
                self._hub.logger.info("%r is refused, the user has as many as may be", self)
                self.drop(Reason.SEATS_FULL)
                return
            welcome = self._begin(decision)
        except ProtocolViolation as error:
            self._violated(error)
            return
        except Exception as error:
            self._refuse(error)
            return
        self._stop_clock()
        if decision.state is not None:
            self._state = decision.state
        if self._stages is METERED:
            self._count_from_now_on(decision.cid)
        self._admit()
        self.enqueue(welcome, counts=False)
        self._watch()
        self._server.seat(self, decision.cid)

    def _begin(self, decision: Decision) -> bytes:
        """Begin a session, where the protocol keeps them; the welcome."""
        if not self.protocol.keeps_sessions:
            return self._frame(self._within_limit(self.protocol.welcome(decision.welcome)))
        self.session = secrets.token_urlsafe(16)
        ring = Ring(self._hub.limits)
        welcome = self._frame(self._pack_welcome(decision.welcome, ring, resumed=False))
        self._ring = ring
        return welcome

    def _pack_welcome(self, payload: Any, ring: Ring, *, resumed: bool) -> bytes:
        limits = self._hub.limits
        terms = Terms(
            session=self.session,
            device=self.device,
            conn=self.conn_id,
            resumed=resumed,
            received=ring.received,
            window=limits.session_window or 0.0,
            ring=limits.max_kept_messages,
            ring_bytes=limits.max_kept_bytes,
            heartbeat=limits.heartbeat_interval,
        )
        return self._within_limit(self.protocol.welcome(payload, terms))

    # -- the session -------------------------------------------------------------------------

    def _goes_on(self, newcomer: WseConnection[Any], received: int, welcome: Any) -> bool:
        """Go on with the connection of a device that has come back, if nothing is missing.

        Raises:
            ProtocolViolation: a count that cannot be.
            Exception: the welcome cannot be packed.
        """
        ring = self._ring
        assert ring is not None
        if (
            not ring.reaches(received)
            or self.wire != newcomer.wire
            or self._too_slow
            or self.stage not in (Stage.READY, Stage.SUSPENDED)
        ):
            return False
        frame = self._frame(self._pack_welcome(welcome, ring, resumed=True))
        self._stop_clock()
        newcomer._stop_clock()
        transport = newcomer._give_transport()
        self._server.sessions.resume(self)
        self.meta, self.context = newcomer.meta, newcomer.context
        self.remote_addr = newcomer.remote_addr
        self._go_on(transport, received, [frame])
        self._watch()
        self._server.resumed(self, newcomer)
        return True

    def _waits_for_return(self, code: int) -> bool:
        return self._hub.limits.session_window is not None

    def _suspended(self, code: int, reason: str) -> None:
        assert self._ring is not None
        self._last_seen = asyncio.get_running_loop().time()
        self._stop_clock()
        self._server.sessions.suspend(self, code, self._ring.size)
        self._server.suspended(self, code, reason)

    def _kept(self, frame: bytes) -> bool:
        assert self._ring is not None
        before = self._ring.size - len(frame)
        self._ring.trim()
        self._server.sessions.grow(self, self._ring.size - before)
        return not self._ring.has_gap

    def expire(self, code: int) -> None:
        """The session has waited long enough."""
        if self.stage is Stage.SUSPENDED:
            self._server.sessions.end(self, None)
            self._leave(code, Reason.NO_REASON)

    def _watch(self) -> None:
        """Ask a silent peer for signs of life, where its carrier does not."""
        if not self._transport.pings and self.protocol.keeps_sessions:
            assert self._hub.loop is not None
            heartbeat = Heartbeat(self._hub.limits, self._hub.loop.time())
            self._look(heartbeat, self._hub.loop)

    def _look(self, heartbeat: Heartbeat, loop: asyncio.AbstractEventLoop) -> None:
        transport = self._transport
        heartbeat.heard = max(heartbeat.heard, transport.heard)
        pulse, again = heartbeat.check(
            loop.time(), deaf=self._desk.is_full, unwritten=transport.unwritten
        )
        if pulse is Pulse.LOST:
            transport.abort()
            self.lost(CloseCode.ABNORMAL, Reason.HEARTBEAT_LOST)
            return
        if pulse is Pulse.ASK:
            self._post_uncounted(self._protocol5.ping())
        self._timer = loop.call_at(again, self._look, heartbeat, loop)

    def _says_bye(self, bye: Bye) -> None:
        pass

    async def _challenge(self, quest: Any) -> Any:
        if self.stage is not Stage.IDENTIFYING:
            raise RuntimeError("a challenge is asked within identify, one at a time")
        if self._rounds >= self._hub.limits.max_challenge_rounds:
            raise ChallengeRoundsExceeded({"limit": self._hub.limits.max_challenge_rounds})
        self._post(self.protocol.challenge(quest))
        self._rounds += 1
        self._enter(Stage.CHALLENGED)
        self._answer = asyncio.get_running_loop().create_future()
        return await self._answer

    def _answered(self, payload: Any) -> None:
        answer, self._answer = self._answer, None
        assert answer is not None
        self._enter(Stage.IDENTIFYING)
        if answer.done():
            return
        try:
            value = decode_checked(self.protocol.plain, payload)
        except InvalidPayload as error:
            self._hub.logger.info("%r is refused, its answer cannot be read", self)
            self._report_error(error)
            self.drop(Reason.NOT_AUTHORIZED)
        else:
            answer.set_result(value)

    def _meter(self, message: Message, size: int) -> None:
        """Take a message unless it is one too many; the answer to a call never is."""
        solicited = isinstance(message, Result | Failure) and message.stamp in self._calls
        now = asyncio.get_running_loop().time()
        if not solicited and not all(bucket.take(now) for bucket in self._buckets):
            self._hub.logger.info("%r sends more than it may", self)
            self.drop(Reason.RATE_LIMIT)
            return
        action = SERVER[Stage.READY].actions[message.__class__]
        if action is Action.DELIVER:
            self._deliver(message, size)
        else:
            self._shake(action, message, size)

    def _count_from_now_on(self, cid: str) -> None:
        limits, now = self._hub.limits, asyncio.get_running_loop().time()
        buckets = [self._server.rates.join(cid, now)]
        if limits.messages_per_second is not None:
            buckets.append(Bucket(limits.messages_per_second, limits.rate_burst_seconds, now))
        self._buckets = tuple(bucket for bucket in buckets if bucket is not None)

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._hub.logger.info("%r was not identified in time", self)
        self.drop(Reason.AUTHENTICATION_TIMEOUT)

    def _ended(self, code: int, reason: str) -> None:
        self._stop_clock()
        self._handshake = None
        task, self._identifying = self._identifying, None
        if task is not None and task is not asyncio.current_task():  # which may close the server
            task.cancel()
        if self.session:
            tombstone = None if comes_back(code) else Tombstone(self.cid, code, reason)
            self._server.sessions.end(self, tombstone)
        self._server.unseat(self, code, reason)

    # -- what the server hears ---------------------------------------------------------------

    def _report_ignored(self, type: str, payload: Any) -> None:
        self._server.ignored.emit(self, type, payload)

    def _report_error(self, error: WseError) -> None:
        self._server.report_error(error, self)

    def _stamp(self, name: str, number: int) -> str:
        return str(number)
