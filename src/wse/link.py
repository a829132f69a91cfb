"""One connection of a client: the device's side of the handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from .codes import CloseCode, Reason, comes_back
from .endpoint import Endpoint
from .errors import (
    ConnectionFailed,
    InvalidPayload,
    NotAuthorized,
    ProtocolViolation,
    SolverMissing,
    WseError,
    printable,
)
from .handler import is_awaitable, start_task
from .hub import Hub
from .messages import Bye, Challenge, Message, Resume, Terms, Welcome
from .protocol import Protocol, decode_checked
from .ring import Ring
from .signals import Signal
from .stages import CLIENT, Action, Stage
from .transports.base import Transport

__all__ = ["ClientHub", "Link"]


class ClientHub(Hub):
    """What all connections of a client share, one after the other, and what they tell it."""

    solver: Callable[[Any], Any] | None = None
    """Answers challenges."""
    comes_back: Callable[[], bool]
    """Whether the client connects again when its connection is lost."""
    claim: Callable[[Link, Terms], Link | None]
    """The server accepted, on these terms: the suspended link that goes on, if one does."""
    welcomed: Callable[[Any], None]
    """The server accepted, with this welcome."""
    resumed: Callable[[Any], None]
    """The server accepted, and the session goes on."""
    suspended: Callable[[Link, int, str], None]
    """A connection is lost, and its session waits."""
    ended: Callable[[Link, int, str], None]
    """A connection has ended."""
    ignored: Signal[[str, Any]]
    report_error: Callable[[WseError], None]


class Link(Endpoint):
    """One connection of a client, from the opened WebSocket to its end.

    Where the server keeps its session, it outlasts the WebSocket.
    """

    gives_itself = False

    __slots__ = ("_held", "_solving", "after", "asked", "terms", "welcome")

    def __init__(self, hub: ClientHub, transport: Transport, protocol: Protocol) -> None:
        super().__init__(hub, transport, protocol, CLIENT)
        self._held: list[tuple[Message, int]] = []
        self._solving: asyncio.Task[Any] | None = None
        self.terms: Terms | None = None
        """Those of the session; None without one."""
        self.asked = ""
        """The session that it wants to go on with."""
        self.after: float | None = None
        """Seconds after which the server wants it back, when it has said so."""
        self.welcome: asyncio.Future[Any] = hub.bind().create_future()
        """Done with the payload of the welcome, or with why there is none."""

    def __repr__(self) -> str:
        return f"<connection to the server, {self.stage.name}>"

    @property
    def _client(self) -> ClientHub:
        return cast(ClientHub, self._hub)

    def greet(
        self, identity: Any, meta: Any, device: str | None = None, away: Link | None = None
    ) -> None:
        """Say who this is, and listen.

        Args:
            identity: Who.
            meta: What the device says about itself.
            device: Which device this is.
            away: The link whose session is to go on.
        """
        resume = None
        if away is not None:
            resume = away.claim_check()
            self.asked = resume.session
        self._post(self.protocol.hi(identity, meta, device, resume))
        self._transport.start(self)

    def claim_check(self) -> Resume:
        """What the server needs to go on with this session."""
        assert self._ring is not None
        assert self.terms is not None
        return Resume(self.terms.session, self._ring.received)

    @property
    def session(self) -> str:
        """Names its session; "" without one."""
        return "" if self.terms is None else self.terms.session

    @property
    def unacked(self) -> int:
        """Messages that were sent and of which nobody knows whether they came."""
        return 0 if self._ring is None else self._ring.unacked

    @property
    def is_full(self) -> bool:
        """Whether it keeps as much as it may for its return."""
        return self._ring is not None and self._ring.is_full

    def goes_on(self, newcomer: Link, terms: Terms) -> bool:
        """Go on with the connection of this one, unless something is missing.

        Raises:
            ProtocolViolation: a count that cannot be.
        """
        assert self._ring is not None
        if not self._ring.reaches(terms.received):
            return False
        self.terms, self.after = terms, None
        self._ring.agree(terms.ring, terms.ring_bytes)
        self._go_on(newcomer._give_transport(), terms.received, [])
        return True

    def end(self, code: int, reason: str) -> None:
        """Close, after what was sent before; nothing when it has ended."""
        self._close(code, reason)

    def abandon(self) -> None:
        """End before the welcome, so that a session which it asked for waits on."""
        if self.asked:
            self._transport.abort()
            self._leave(CloseCode.ABNORMAL, Reason.NO_REASON)
        else:
            self.end(CloseCode.NORMAL, Reason.BY_CLIENT)

    def fail(self, error: BaseException) -> None:
        """Give up before the welcome, because of ourselves."""
        if isinstance(error, StopIteration):  # which no future takes
            error = RuntimeError("the solver raised StopIteration")
        if not self.welcome.done():
            self.welcome.set_exception(error)
        self._close(CloseCode.NORMAL, Reason.BY_CLIENT)

    def transport_closed(self) -> Coroutine[Any, Any, None]:
        """Wait until nothing of the present transport is left, whichever comes next."""
        return self._transport.wait_closed()

    def _shake(self, action: Action, message: Message, size: int) -> None:
        match action, message:
            case Action.HOLD, _:
                self._hold(message, size)
            case Action.READY, Welcome():
                self._welcomed(message)
            case Action.SOLVE, Challenge():
                self._solve(message.payload)
            case Action.UNHANDLED, Challenge():
                self._unhandled(self.protocol.types.challenge, message.payload)
            case Action.UNHANDLED, Welcome():
                self._unhandled(self.protocol.types.welcome, message.payload)

    def _hold(self, message: Message, size: int) -> None:
        """A JavaScript server's `joined` handlers may speak before its welcome."""
        self._held.append((message, size))
        limits = self._hub.limits
        if (
            len(self._held) > limits.max_inbox_messages
            or sum(size for _, size in self._held) > limits.max_inbox_bytes
        ):
            self._violated(ProtocolViolation(message="too much before the welcome"))

    def _welcomed(self, message: Welcome) -> None:
        terms = away = None
        try:
            welcome = decode_checked(self.protocol.plain, message.payload)
            if self.protocol.keeps_sessions:
                terms = self._protocol5.read_terms(message)
            if self.welcome.done():  # cancelled, the end follows
                return
            if terms is not None:
                away = self._client.claim(self, terms)
        except (InvalidPayload, ProtocolViolation) as error:
            self._violated(error)
            return
        if self.welcome.done():
            return
        self.welcome.set_result(welcome)
        held, self._held = self._held, []
        if away is not None:
            self._client.resumed(welcome)
        else:
            self._admit()
            if terms is not None:
                self.terms = terms
                self._ring = Ring(self._hub.limits)
                self._ring.agree(terms.ring, terms.ring_bytes)
            self._client.welcomed(welcome)
        goes_on = away or self
        for one, size in held:
            if goes_on.stage is Stage.READY:
                goes_on._deliver(one, size)

    def _waits_for_return(self, code: int) -> bool:
        return (
            self.terms is not None
            and self.terms.window > 0
            and comes_back(code)
            and self._client.comes_back()
        )

    def _suspended(self, code: int, reason: str) -> None:
        self._client.suspended(self, code, reason)

    def _kept(self, frame: bytes) -> bool:
        return True

    def _says_bye(self, bye: Bye) -> None:
        self.after = bye.after

    def lose(self, code: int, reason: str) -> None:
        """The session is over, which was suspended."""
        self._leave(code, reason)

    def _solve(self, payload: Any) -> None:
        if self._client.solver is None:
            self.fail(SolverMissing())
            return
        if self._solving is not None:
            return
        try:
            quest = decode_checked(self.protocol.plain, payload)
        except InvalidPayload as error:
            self._violated(error)
            return
        task = start_task(self._hub.bind(), self._answer(self._client.solver, quest))
        self._solving = None if task.done() else task

    async def _answer(self, solver: Callable[[Any], Any], quest: Any) -> None:
        try:
            answer = solver(quest)
            if is_awaitable(answer):
                answer = await answer
            if self.stage is Stage.STRANGER:
                self._post(self.protocol.challenge(answer))
        except Exception as error:
            if self.stage is Stage.STRANGER:
                self.fail(error)
            else:
                self._report_error(self._hub.failed("the solver", error, event="challenge"))
        finally:
            self._solving = None

    def _ended(self, code: int, reason: str) -> None:
        if self._solving is not None and self._solving is not asyncio.current_task():
            self._solving.cancel()
        if not self.welcome.done():
            if reason == Reason.NOT_AUTHORIZED:
                self.welcome.set_exception(NotAuthorized())
            else:
                temporary = comes_back(code)
                details = {"code": int(code), "reason": str(reason)}
                message = f"closed before the welcome: {details['code']} {printable(reason)}"
                failure = ConnectionFailed(details, message, temporary=temporary)
                self.welcome.set_exception(failure)
        self._client.ended(self, code, reason)

    def _report_ignored(self, type: str, payload: Any) -> None:
        self._client.ignored.emit(type, payload)

    def _report_error(self, error: WseError) -> None:
        self._client.report_error(error)

    def _stamp(self, name: str, number: int) -> str:
        return self.protocol.call_stamp(name, number)
