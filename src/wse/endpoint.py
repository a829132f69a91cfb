"""One end of a connection, whichever side it is on: the way in and the way out."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from threading import get_ident
from typing import Any, assert_never

from .calls import Calls
from .channel import Channel
from .codes import CloseCode, ErrorCode, Reason
from .errors import (
    CallDisconnected,
    CallError,
    ConnectionBroken,
    HandlerFailed,
    InvalidPayload,
    MessageTooLarge,
    PeerError,
    WseError,
    error_of,
    travels,
)
from .handler import EAGER, Handler, is_awaitable, start_task
from .inbox import Inbox, Job
from .limits import Limits
from .messages import Call, Challenge, Event, Failure, Hi, Message, Result, Welcome
from .outbox import Flusher, Outbox, Wire
from .procedures import Procedures
from .protocol import MAX_STAMP_LENGTH, Protocol, decode_checked
from .session import Action, Rules, Stage
from .transports.base import Transport

__all__ = ["Endpoint", "Hub"]


class Hub:
    """What all ends of one server, or of one client, share."""

    def __init__(
        self,
        *,
        channel: Channel,
        procedures: Procedures,
        limits: Limits,
        timeout: float,
        logger: logging.Logger,
    ) -> None:
        self.channel = channel
        self.procedures = procedures
        self.limits = limits
        self.timeout = timeout
        self.logger = logger
        self.loop: asyncio.AbstractEventLoop | None = None
        self.flusher: Flusher
        self.tasks: set[asyncio.Task[Any]] = set()
        """What is at work for connections, also for those that have ended."""
        self._thread = 0

    def bind(self) -> asyncio.AbstractEventLoop:
        """Belong to the loop that runs."""
        loop = asyncio.get_running_loop()
        if self.loop is not loop:
            self.loop = loop
            self._thread = get_ident()
            self.flusher = Flusher(loop)
        return loop

    def hold(self, task: asyncio.Task[Any]) -> None:
        """Keep a task of a connection in sight until it ends."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def include(self, *parts: Channel | Procedures) -> None:
        """Take in handlers that were registered elsewhere, those there are and those to come.

        Raises:
            AlreadyRegistered: a procedure's name is taken.
            TypeError: handlers of the other side.
        """
        for part in parts:
            if isinstance(part, Channel):
                self.channel.include(part)
            else:
                self.procedures.include(part)

    @property
    def elsewhere(self) -> bool:
        """Whether the caller is in another thread than the loop."""
        return self.loop is not None and get_ident() != self._thread

    def run(self, function: Callable[..., None], *args: Any) -> None:
        """Run a function on the loop: now, or in order when another thread asks.

        Once the loop is closed there is nobody left to send to, and nothing is done.
        """
        if self.loop is None or get_ident() == self._thread:
            function(*args)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *args)


class Endpoint:
    """One end of an open connection.

    In: the transport calls `receive`; the protocol reads a message; the rules of the stage say
    whether it may be said now; an event goes to the channel, a call to the procedures, a reply to
    the call that waits. Out: pack, outbox, one write for each turn of the loop. Both ways are
    plain calls: only an asynchronous handler gets a task.

    Args:
        hub: What it shares with others.
        transport: The carrier, not started yet.
        protocol: How messages are packed.
        stages: The rules of each stage, for this side.
        context: What handlers are given before the payload.
    """

    __slots__ = (
        "_calls",
        "_context",
        "_frame",
        "_hub",
        "_inbox",
        "_outbox",
        "_pumping",
        "_rules",
        "_stages",
        "_tasks",
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
        context: tuple[Any, ...],
    ) -> None:
        self._hub = hub
        self._transport = transport
        self.protocol = protocol
        self._stages = stages
        self._context = context
        self._frame = transport.framing(binary=protocol.binary)
        self.wire: Wire = (protocol, self._frame)
        self._calls = Calls()
        self._inbox = Inbox(hub.limits)
        self._outbox = Outbox(hub.limits)
        self._tasks: set[asyncio.Task[Any]] | None = None
        self._pumping = False
        self._too_slow = False
        self._enter(Stage.STRANGER)

    # -- what each side decides for itself ---------------------------------------------------

    def _shake(self, action: Action, message: Message, size: int) -> None:
        """Carry out an action of the handshake."""
        raise NotImplementedError

    def _ended(self, code: int, reason: str) -> None:
        """The connection has just become CLOSED."""
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
        action = rules.action(message.__class__)
        if action is Action.DELIVER:
            self._deliver(message, len(data))
        else:
            self._shake(action, message, len(data))

    def lost(self, code: int, reason: str, *, failed: bool = False) -> None:
        """The transport has ended; see `Receiver`."""
        if not self._inbox.unstarted:
            self._pump()
        if self._inbox.unstarted:  # what came before the end starts before it (Python 3.11)
            later = partial(self.lost, code, reason, failed=failed)
            asyncio.get_running_loop().call_soon(later)
        elif self.stage is not Stage.CLOSED:
            if failed:
                self._report_error(ConnectionBroken({"code": code, "reason": reason}))
            self._leave(code, reason)

    def _deliver(self, message: Message, size: int) -> None:
        match message:
            case Event():
                handlers = self._hub.channel.take(message.type)
                if not handlers:
                    self._unhandled(message.type, message.payload)
                for handler in handlers:
                    self._begin(handler, message.type, message.payload, None, size)
            case Call():
                procedure = self._hub.procedures.get(message.name)
                if procedure is None:
                    self._reply_failure(message.name, message.stamp, ErrorCode.RP_NOT_REGISTERED)
                else:
                    self._begin(procedure, message.name, message.payload, message.stamp, size)
            case Result():
                self._settle(message.stamp, message.payload)
            case Failure():
                error = error_of(message.code, message.details, message.message)
                self._calls.settle(message.stamp, error)
            case Hi() | Challenge() | Welcome():  # pragma: no cover - no rule delivers them
                raise AssertionError(message)
            case _:
                assert_never(message)

    def _settle(self, stamp: str, payload: Any) -> None:
        try:
            outcome = decode_checked(self.protocol.plain, payload)
        except InvalidPayload as error:
            outcome = error
        self._calls.settle(stamp, outcome)

    def _unhandled(self, type: str, payload: Any) -> None:
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

    # -- handlers ----------------------------------------------------------------------------

    def _begin(
        self, handler: Handler, type: str, payload: Any, stamp: str | None, size: int
    ) -> None:
        if self.stage is Stage.CLOSED:
            return
        if self._inbox.admits(handler):
            self._run(handler, type, payload, stamp)
            return
        self._inbox.keep(Job(handler, type, payload, stamp, size))
        # While a call waits its answer must come, so reading goes on for another inbox's worth.
        if self._inbox.overfull or (self._inbox.full and not self._calls):
            self._transport.pause_reading()

    def _run(self, handler: Handler, type: str, payload: Any, stamp: str | None) -> None:
        try:
            value = handler.decode(payload, self.protocol)
        except InvalidPayload as error:
            self._unfit(type, stamp, error)
            return
        if handler.is_async:
            work = partial(handler.function, *self._context, value)
        else:
            try:
                outcome = handler.function(*self._context, value)
            except (Exception, asyncio.CancelledError) as error:
                self._failed(type, stamp, error)
                return
            if not is_awaitable(outcome):
                if stamp is not None:
                    self._reply(type, stamp, outcome)
                return
            work = partial(_same, outcome)
        self._inbox.begin(handler, started=EAGER)
        assert self._hub.loop is not None
        task = start_task(self._hub.loop, self._work(handler, type, work, stamp))
        if not task.done():
            if self._tasks is None:
                self._tasks = set()
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._hub.hold(task)

    async def _work(
        self,
        handler: Handler,
        type: str,
        work: Callable[[], Awaitable[Any]],
        stamp: str | None,
    ) -> None:
        if not EAGER:
            self._inbox.first_step()
            if self._inbox:
                asyncio.get_running_loop().call_soon(self._pump)
        try:
            outcome = await work()
        except Exception as error:
            self._failed(type, stamp, error)
        except asyncio.CancelledError as error:
            if self.stage is not Stage.CLOSED:
                self._failed(type, stamp, error)
            raise
        else:
            if stamp is not None:
                self._reply(type, stamp, outcome)
        finally:
            self._inbox.end(handler)
            if self._inbox:
                self._pump()

    def _pump(self) -> None:
        """Start what waits and may start, then read on."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while (job := self._inbox.next()) is not None:
                self._run(job.handler, job.type, job.payload, job.stamp)
        finally:
            self._pumping = False
        if self._inbox.has_room:
            self._transport.resume_reading()

    def _reply(self, type: str, stamp: str, outcome: Any) -> None:
        try:
            self._emit(self._within_limit(self.protocol.result(stamp, outcome)))
        except Exception as error:
            self._crashed(type, stamp, error)

    def _unfit(self, type: str, stamp: str | None, error: InvalidPayload) -> None:
        """A payload does not fit its handler."""
        self._hub.logger.info("payload of %r does not fit at %s", type, error.details["path"])
        if stamp is None:
            self._report_error(error)
        else:
            self._reply_failure(type, stamp, error.code, error.details)

    def _failed(self, type: str, stamp: str | None, error: BaseException) -> None:
        """A handler raised: the application's own errors are an answer, others are not."""
        if stamp is not None and isinstance(error, WseError) and travels(error):
            self._reply_failure(type, stamp, error.code, error.details)
        else:
            self._crashed(type, stamp, error)

    def _reply_failure(self, type: str, stamp: str, code: str, details: Any = None) -> None:
        try:
            self._emit(self._within_limit(self.protocol.failure(stamp, code, details)))
        except Exception as unsendable:
            self._crashed(type, stamp, unsendable)

    def _crashed(self, type: str, stamp: str | None, error: BaseException) -> None:
        """The log learns everything, a caller an id."""
        error_id = secrets.token_hex(8)
        self._hub.logger.error("handler of %r failed [%s]", type, error_id, exc_info=error)
        if stamp is not None:
            try:
                details = {"id": error_id}
                self._emit(self.protocol.failure(stamp, ErrorCode.RP_EXECUTION_FAILED, details))
            except Exception:
                self._hub.logger.exception("%r cannot pack a failure", self.protocol)
        failure = HandlerFailed({"type": type, "id": error_id})
        failure.__cause__ = error
        self._report_error(failure)

    # -- out ---------------------------------------------------------------------------------

    def _send(self, type: str, payload: Any) -> None:
        self._post(self.protocol.event(type, payload))

    async def _call(self, name: str, payload: Any, timeout: float | None) -> Any:
        if self._hub.elsewhere:
            raise RuntimeError("call from the loop's own thread (run_coroutine_threadsafe)")
        seconds = self._hub.timeout if timeout is None else timeout
        if not seconds > 0:
            raise ValueError("a timeout is a positive number of seconds")
        stamp = self._stamp(name, self._calls.next_number())
        if len(stamp) > MAX_STAMP_LENGTH:
            raise ValueError("the name of the procedure is too long")
        self._post(self.protocol.event(name, payload, stamp))
        if self._inbox.full and not self._inbox.overfull:
            # The answer comes behind what waits: read on, once the call waits for it.
            asyncio.get_running_loop().call_soon(self._transport.resume_reading)
        try:
            return await self._calls.wait(stamp, seconds)
        except CallError as error:
            error.message = error.message or f"calling {name!r}"
            raise

    def _post(self, data: bytes) -> None:
        """Send a packed message, from any thread; nothing once the connection has ended.

        Raises:
            MessageTooLarge: it is above the limit.
        """
        self._hub.run(self._emit, self._within_limit(data))

    def _emit(self, data: bytes) -> None:
        """Send a packed message that is within the limit; on the loop's thread."""
        self.enqueue(self._frame(data))

    def _within_limit(self, data: bytes) -> bytes:
        limit = self._hub.limits.max_message_bytes
        if len(data) > limit:
            raise MessageTooLarge({"size": len(data), "limit": limit})
        return data

    def enqueue(self, frame: bytes) -> None:
        """Let a framed message leave at the end of the turn; on the loop's thread."""
        if self.stage is Stage.CLOSED or self._too_slow:
            return
        if self._outbox.append(frame):
            self._hub.flusher.add(self.flush)
        elif self._outbox.crowded and not self._outbox.flush(self._transport):
            # It ends with the turn: nobody who sends is surprised by `disconnected` meanwhile.
            self._too_slow = True
            self._outbox.clear()
            self._hub.flusher.add(self.flush)

    def flush(self) -> None:
        """Write what waits; end the connection when its peer does not keep up."""
        keeps_up = self._outbox.flush(self._transport) and not self._too_slow
        if not keeps_up and self.stage is not Stage.CLOSED:
            self._hub.logger.warning("%r does not read what it is sent", self)
            self._outbox.clear()
            self._close(Reason.SLOW_CONSUMER.close_code, Reason.SLOW_CONSUMER)

    def writable(self) -> None:
        """The transport has written everything; see `Receiver`."""
        self.flush()

    # -- stages ------------------------------------------------------------------------------

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        self._rules: Rules = self._stages[stage]

    def _admit(self) -> None:
        """The peer is known: from now on it may say more."""
        self._transport.max_message_bytes = self._hub.limits.max_message_bytes
        self._enter(Stage.READY)

    def _close(self, code: int, reason: str) -> None:
        """Say goodbye, after what was sent before, and leave."""
        if self.stage is Stage.CLOSED:
            return
        self._outbox.flush(self._transport, forced=True)
        self._transport.close(code, reason)
        self._leave(code, reason)

    def _leave(self, code: int, reason: str) -> None:
        self._enter(Stage.CLOSED)
        self._outbox.clear()
        if self._inbox:
            count = len(self._inbox)
            self._hub.logger.info("%r ended with %d messages not handled", self, count)
        self._inbox.clear()
        self._transport.resume_reading()
        self._calls.fail_all(CallDisconnected)
        if self._tasks:
            # Not at once: a handler whose message came before the end has its first step.
            asyncio.get_running_loop().call_soon(self._cancel, asyncio.current_task())
        self._ended(code, reason)

    def _cancel(self, spared: asyncio.Task[Any] | None) -> None:
        for task in tuple(self._tasks or ()):
            if task is not spared:
                task.cancel()


async def _same(outcome: Awaitable[Any]) -> Any:
    return await outcome
