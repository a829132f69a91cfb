"""One connection of a client: the device's side of the handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
from .messages import Challenge, Message, Welcome
from .protocol import Protocol, decode_checked
from .stages import CLIENT, Action, Stage
from .signals import Signal
from .transports.base import Transport

__all__ = ["ClientHub", "Link"]


class ClientHub(Hub):
    """What all connections of a client share, one after the other, and what they tell it."""

    solver: Callable[[Any], Any] | None = None
    """Answers challenges."""
    welcomed: Callable[[Any], None]
    """The server accepted, with this welcome."""
    ended: Callable[[Link, int, str], None]
    """A connection has ended."""
    ignored: Signal[[str, Any]]
    report_error: Callable[[WseError], None]


class Link(Endpoint):
    """One connection of a client, from the opened WebSocket to its end."""

    gives_itself = False

    __slots__ = ("_held", "_solving", "welcome")

    def __init__(self, hub: ClientHub, transport: Transport, protocol: Protocol) -> None:
        super().__init__(hub, transport, protocol, CLIENT)
        self._held: list[tuple[Message, int]] = []
        self._solving: asyncio.Task[Any] | None = None
        self.welcome: asyncio.Future[Any] = hub.bind().create_future()
        """Done with the payload of the welcome, or with why there is none."""

    def __repr__(self) -> str:
        return f"<connection to the server, {self.stage.name}>"

    @property
    def _client(self) -> ClientHub:
        return cast(ClientHub, self._hub)

    def greet(self, identity: Any, meta: Any) -> None:
        """Say who this is, and listen."""
        self._post(self.protocol.hi(identity, meta))
        self._transport.start(self)

    def end(self, code: int, reason: str) -> None:
        """Close, after what was sent before; nothing when it has ended."""
        self._close(code, reason)

    def fail(self, error: BaseException) -> None:
        """Give up before the welcome, because of ourselves."""
        if isinstance(error, StopIteration):  # which no future takes
            error = RuntimeError("the solver raised StopIteration")
        if not self.welcome.done():
            self.welcome.set_exception(error)
        self._close(CloseCode.NORMAL, Reason.BY_CLIENT)

    async def wait_closed(self) -> None:
        """Wait until nothing of the connection is left."""
        await self._transport.wait_closed()

    def _shake(self, action: Action, message: Message, size: int) -> None:
        match action, message:
            case Action.HOLD, _:
                self._hold(message, size)
            case Action.READY, Welcome():
                self._welcomed(message.payload)
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

    def _welcomed(self, payload: Any) -> None:
        try:
            welcome = decode_checked(self.protocol.plain, payload)
        except InvalidPayload as error:
            self._violated(error)
            return
        if self.welcome.done():  # cancelled, the end follows
            return
        self._admit()
        self.welcome.set_result(welcome)
        self._client.welcomed(welcome)
        held, self._held = self._held, []
        for message, size in held:
            if self.stage is Stage.READY:
                self._deliver(message, size)

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
