"""One end of a connection, whichever side it is on: the way in and the way out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, assert_never

from .calls import Calls
from .codes import CloseCode, ErrorCode, Reason, suspends
from .desk import Desk
from .errors import (
    CallDisconnected,
    CallError,
    CallTimeout,
    ConnectionBroken,
    InvalidPayload,
    MessageTooLarge,
    PeerError,
    ProtocolViolation,
    WseError,
    error_of,
)
from .hub import Hub
from .messages import (
    Ack,
    Bye,
    Call,
    Cancel,
    Challenge,
    Event,
    Failure,
    Hi,
    Message,
    Ping,
    Pong,
    Result,
    Welcome,
)
from .outbox import Outbox, Wire
from .protocol import MAX_STAMP_LENGTH, Protocol, decode_checked
from .protocol5 import Protocol5
from .ring import Ring
from .stages import Action, Rules, Stage
from .transports.base import NOWHERE, Transport

__all__ = ["Endpoint"]


class Endpoint:
    """One end of an open connection.

    In: the transport calls `receive`; the protocol reads a message; the rules of the stage say
    whether it may be said now; an event goes to the channel, a call to the procedures, a reply to
    the call that waits; the desk starts their handlers. Out: pack, outbox, one write for each turn
    of the loop. Both ways are plain calls: only an asynchronous handler gets a task.

    Where the protocol keeps sessions, it outlasts its transport: it is suspended then, and what is
    sent waits in the ring until it goes on with another transport.

    Args:
        hub: What it shares with others.
        transport: The carrier, not started yet.
        protocol: How messages are packed.
        stages: The rules of each stage, for this side.
    """

    gives_itself: ClassVar[bool]
    """Whether handlers are given the connection before the payload."""

    __slots__ = (
        "_calls",
        "_desk",
        "_frame",
        "_hub",
        "_outbox",
        "_ring",
        "_rules",
        "_stages",
        "_too_slow",
        "_transport",
        "protocol",
        "stage",
        "wire",
    )

    def __init__(
        self,
        hub: Hub,
        transport: Transport,
        protocol: Protocol,
        stages: Mapping[Stage, Rules],
    ) -> None:
        self._hub = hub
        self._transport = transport
        self.protocol = protocol
        self._stages = stages
        self._frame = transport.framing(binary=protocol.binary)
        self.wire: Wire = (protocol, self._frame)
        self._calls = Calls()
        self._desk = Desk(hub.limits)
        self._outbox = Outbox(hub.limits)
        self._ring: Ring | None = None
        self._too_slow = False
        self._enter(Stage.STRANGER)

    # -- what each side decides for itself ---------------------------------------------------

    def _shake(self, action: Action, message: Message, size: int) -> None:
        """Carry out an action of the handshake."""
        raise NotImplementedError

    def _ended(self, code: int, reason: str) -> None:
        """The connection has just become CLOSED."""
        raise NotImplementedError

    def _waits_for_return(self, code: int) -> bool:
        """Whether the session outlasts its connection, which has just ended so."""
        raise NotImplementedError

    def _suspended(self, code: int, reason: str) -> None:
        """The session has just become SUSPENDED."""
        raise NotImplementedError

    def _kept(self, frame: bytes) -> bool:
        """A frame waits for the return; false when it is one too many."""
        raise NotImplementedError

    def _says_bye(self, bye: Bye) -> None:
        """The peer goes before long."""
        raise NotImplementedError

    def _report_ignored(self, type: str, payload: Any) -> None:
        raise NotImplementedError

    def _report_error(self, error: WseError) -> None:
        raise NotImplementedError

    def _stamp(self, name: str, number: int) -> str:
        raise NotImplementedError

    # -- in ----------------------------------------------------------------------------------

    def receive(self, data: bytes, text: bool) -> None:
        """A message has come; see `Receiver`."""
        rules = self._rules
        if not rules.hears:
            return
        try:
            message = self.protocol.read(data)
        except PeerError as error:
            if rules.unreadable is Action.VIOLATION:
                self._violated(error)
            return
        action = rules.actions[message.__class__]
        if self._ring is not None and rules.counts and action is not Action.CONTROL:
            self._count(self._ring, len(data))
        if action is Action.DELIVER:
            self._deliver(message, len(data))
        elif action is Action.CONTROL:
            self._control(message)
        else:
            self._shake(action, message, len(data))

    def lost(self, code: int, reason: str, *, failed: bool = False) -> None:
        """The transport has ended; see `Receiver`."""
        if (
            self.stage is Stage.READY
            and self._ring is not None
            and not self._too_slow
            and not failed
            and suspends(code)
            and self._waits_for_return(code)
        ):
            self._transport.resume_reading()
            self._suspend(code, reason)
            self._transport = NOWHERE
        else:
            self._lose(self._transport, code, reason, failed=failed)

    def _lose(self, transport: Transport, code: int, reason: str, *, failed: bool) -> None:
        """End with the transport, unless it has another one by now."""
        if self._transport is not transport or self.stage is Stage.CLOSED:
            return
        if not self._desk.catch_up(self):  # what came before the end starts before it (Python 3.11)
            later = partial(self._lose, transport, code, reason, failed=failed)
            asyncio.get_running_loop().call_soon(later)
        elif self.is_alive:  # a handler may have ended it
            if failed:
                self._report_error(ConnectionBroken({"code": code, "reason": reason}))
            by_peer = not failed and code != CloseCode.ABNORMAL
            self._leave(code, reason, by_peer=by_peer)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.stage is not Stage.CLOSED

    def _control(self, message: Message) -> None:
        match message:
            case Ack():
                assert self._ring is not None
                try:
                    self._ring.ack(message.received)
                except ProtocolViolation as error:
                    self._violated(error)
            case Ping():
                self._post_uncounted(self._protocol5.pong())
            case Bye():
                self._says_bye(message)

    def _deliver(self, message: Message, size: int) -> None:  # noqa: C901 - one case for each
        hub = self._hub
        match message:
            case Call():
                hub.counts.calls += 1
                procedure = hub.procedures.get(message.name)
                if procedure is None:
                    self._desk.fail(self, message.name, message.stamp, ErrorCode.RP_NOT_REGISTERED)
                else:
                    deadline = None
                    if message.milliseconds is not None:
                        deadline = asyncio.get_running_loop().time() + message.milliseconds / 1000
                    name, payload, stamp = message.name, message.payload, message.stamp
                    self._desk.take(self, procedure, name, payload, stamp, size, deadline)
            case Event():
                hub.counts.messages += 1
                handlers = hub.channel.take(message.type)
                if not handlers:
                    self._unhandled(message.type, message.payload)
                for handler in handlers:
                    self._desk.take(self, handler, message.type, message.payload, None, size)
            case Result():
                self._settle(message.stamp, message.payload)
            case Failure():
                error = error_of(message.code, message.details, message.message)
                self._calls.settle(message.stamp, error)
            case Cancel():
                self._desk.give_up(self, message.stamp)
            case Hi() | Challenge() | Welcome() | Ack() | Ping() | Pong() | Bye():
                # pragma: no cover - no rule delivers them
                raise AssertionError(message)
            case _:
                assert_never(message)

    def _settle(self, stamp: str, payload: Any) -> None:
        if stamp not in self._calls:
            return
        try:
            outcome = decode_checked(self.protocol.plain, payload)
        except InvalidPayload as error:
            outcome = error
        self._calls.settle(stamp, outcome)

    def _unhandled(self, type: str, payload: Any) -> None:
        if not self._hub.ignored.is_heard:  # a megabyte of it is not decoded for nobody
            return
        try:
            value = decode_checked(self.protocol.plain, payload)
        except InvalidPayload as error:
            self._report_error(error)
        else:
            self._report_ignored(type, value)

    def _violated(self, error: PeerError) -> None:
        self._hub.logger.info("%r broke the protocol: %s", self, error)
        self._report_error(error)
        self._close(CloseCode.NORMAL, Reason.PROTOCOL_ERROR)

    # -- out ---------------------------------------------------------------------------------

    def _send(self, type: str, payload: Any, *, keep: bool = True) -> None:
        data = self._within_limit(self.protocol.event(type, payload))
        if keep:
            self._hub.run(self._emit, data)
        else:
            self._hub.run(self._emit_once, data)

    async def _call(self, name: str, payload: Any, timeout: float | None) -> Any:
        if self._hub.elsewhere:
            raise RuntimeError("call from the loop's own thread (run_coroutine_threadsafe)")
        seconds = self._hub.timeout if timeout is None else timeout
        if not seconds > 0:
            raise ValueError("a timeout is a positive number of seconds")
        stamp = self._stamp(name, self._calls.next_number())
        if len(stamp) > MAX_STAMP_LENGTH:
            raise ValueError("the name of the procedure is too long")
        frame = self._frame(self._within_limit(self.protocol.call(name, payload, stamp, seconds)))
        self.enqueue(frame)
        if self._desk.has_reserve:
            # The answer comes behind what waits: read on, once the call waits for it.
            asyncio.get_running_loop().call_soon(self._transport.resume_reading)
        try:
            return await self._calls.wait(stamp, seconds)
        except CallError as error:
            if isinstance(error, CallTimeout):
                self._give_up(stamp, frame)
            error.message = error.message or f"calling {name!r}"
            raise
        except asyncio.CancelledError:
            self._give_up(stamp, frame)
            raise
        finally:
            if self.stage is Stage.LEAVING:
                self._go_if_idle()

    def _give_up(self, stamp: str, frame: bytes) -> None:
        """Wait no longer for a call: it need not be sent again, and its handler may stop."""
        if self._ring is not None and self.stage is not Stage.CLOSED:
            self._ring.forget(frame)
            self._emit(self._protocol5.cancel(stamp))

    def _post(self, data: bytes) -> None:
        """Send a packed message, from any thread; nothing once the connection has ended.

        Raises:
            MessageTooLarge: it is above the limit.
        """
        self._hub.run(self._emit, self._within_limit(data))

    def _emit(self, data: bytes) -> None:
        """Send a packed message; on the loop's thread.

        Raises:
            MessageTooLarge: it is above the limit.
        """
        if len(data) > self._hub.max_message_bytes:
            self._within_limit(data)
        self.enqueue(self._frame(data))

    def _emit_once(self, data: bytes) -> None:
        """`_emit` what is not sent again, and not at all while there is no connection."""
        self.enqueue(self._frame(data), keep=False)

    def _post_uncounted(self, data: bytes) -> None:
        """Send what is about the session and not of it."""
        if self.stage is not Stage.SUSPENDED:
            self.enqueue(self._frame(data), counts=False)

    def _within_limit(self, data: bytes) -> bytes:
        limit = self._hub.max_message_bytes
        if len(data) > limit:
            raise MessageTooLarge({"size": len(data), "limit": limit})
        return data

    def enqueue(self, frame: bytes, *, keep: bool = True, counts: bool = True) -> None:
        """Let a framed message leave at the end of the turn; on the loop's thread.

        Args:
            frame: The message.
            keep: Whether to send it again where it may have been lost.
            counts: Whether it is one of the session's.
        """
        if self.stage is Stage.CLOSED or self._too_slow:
            return
        ring = self._ring
        if ring is not None and counts:
            if self.stage is Stage.SUSPENDED:
                if keep:
                    self._append_while_away(ring, frame)
                return
            ring.append(frame, keep=keep)
        outbox = self._outbox
        if outbox.append(frame):
            self._hub.flusher.add(self)
        elif outbox.crowded and not outbox.flush(self._transport):
            # It ends with the turn: nobody who sends is surprised by `disconnected` meanwhile.
            self._too_slow = True
            outbox.clear()
            self._hub.flusher.add(self)

    def _append_while_away(self, ring: Ring, frame: bytes) -> None:
        ring.append(frame)
        if not self._kept(frame):
            # It ends with the turn, as one that is too slow does.
            self._too_slow = True
            self._hub.flusher.add(self)

    @property
    def queued_bytes(self) -> int:
        """What was sent to the peer, and is not written yet."""
        return self._outbox.size + self._transport.unwritten

    def flush(self) -> None:
        """Write what waits; end the connection when its peer does not keep up."""
        if self._outbox.flush(self._transport) and not self._too_slow:
            if self._ring is not None and self._outbox.is_empty:
                self._ring.trim()
            return
        if self.stage is not Stage.CLOSED:
            self._hub.logger.warning("%r does not read what it is sent", self)
            self._outbox.clear()
            self._close(Reason.SLOW_CONSUMER.close_code, Reason.SLOW_CONSUMER)

    def writable(self) -> None:
        """The transport has written everything; see `Receiver`."""
        self.flush()

    # -- the session -------------------------------------------------------------------------

    @property
    def _protocol5(self) -> Protocol5:
        assert isinstance(self.protocol, Protocol5)
        return self.protocol

    def _count(self, ring: Ring, size: int) -> None:
        """A message has come that counts."""
        if ring.take(size):
            self.acknowledge()
        elif not ring.owes:
            ring.owes = True
            self._hub.acks.add(self)

    def acknowledge(self) -> None:
        """Tell the peer what has come."""
        ring = self._ring
        if ring is not None:
            ring.owes = False
            if ring.is_behind and self.stage is not Stage.SUSPENDED:
                self._post_uncounted(self._protocol5.ack(ring.tell()))

    def _suspend(self, code: int, reason: str) -> None:
        """Go on without a connection, for now."""
        assert self._ring is not None
        self._enter(Stage.SUSPENDED)
        self._outbox.clear()
        self._ring.suspend()
        self._suspended(code, reason)

    def _give_transport(self) -> Transport:
        """Go, and leave the connection to another end."""
        transport, self._transport = self._transport, NOWHERE
        self._enter(Stage.CLOSED)
        return transport

    def _go_on(self, transport: Transport, received: int, first: list[bytes]) -> None:
        """Go on with another transport, whose peer has so many messages.

        Args:
            transport: It, started.
            received: How many counted messages the peer has.
            first: Frames that leave before what is sent again.
        """
        assert self._ring is not None
        again = self._ring.rewind(received)
        self._transport.resume_reading()
        self._transport.close(Reason.REPLACED.close_code, Reason.REPLACED)
        self._transport = transport
        transport.hand_over(self)
        if self._desk.is_full and not (self._calls and self._desk.has_reserve):
            transport.pause_reading()
        self._admit()
        self._outbox.clear()
        self._outbox.repeat([*first, *again])
        self._hub.flusher.add(self)

    # -- stages ------------------------------------------------------------------------------

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        self._rules: Rules = self._stages[stage]

    def _admit(self) -> None:
        """The peer is known: from now on it may say more."""
        self._transport.max_message_bytes = self._hub.limits.max_message_bytes
        self._enter(Stage.READY)

    def _go_if_idle(self) -> None:
        """End a connection that is leaving, once nothing is at work for it."""
        if self._desk.is_idle and not self._calls:
            self._go()

    def _go(self) -> None:
        self._close(Reason.SERVER_CLOSING.close_code, Reason.SERVER_CLOSING)

    def _close(self, code: int, reason: str) -> None:
        """Say goodbye, after what was sent before, and leave."""
        if self.stage is Stage.CLOSED:
            return
        self._outbox.flush(self._transport, forced=True)
        self._transport.close(code, reason)
        self._leave(code, reason)

    def _leave(self, code: int, reason: str, *, by_peer: bool = False) -> None:
        self._hub.counts.close(code, reason, by_peer=by_peer)
        self._enter(Stage.CLOSED)
        self._outbox.clear()
        self._transport.resume_reading()
        self._calls.fail_all(CallDisconnected)
        self._desk.close(self)
        self._ended(code, reason)
