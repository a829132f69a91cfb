"""What all connections of one server, or of one client, share."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from threading import get_ident
from typing import Any

from .channel import Channel
from .errors import HandlerFailed
from .limits import Limits
from .outbox import Flusher
from .procedures import Procedures
from .ring import AckTimer
from .signals import Signal
from .stats import Counts

__all__ = ["Hub"]


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
        self.max_message_bytes = limits.max_message_bytes
        self.timeout = timeout
        self.logger = logger
        self.counts = Counts()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.flusher: Flusher
        self.acks: AckTimer
        self.ignored: Signal[...]
        self.tasks: set[asyncio.Task[Any]] = set()
        """What is at work for connections, also for those that have ended."""
        self._thread_id = 0

    def bind(self) -> asyncio.AbstractEventLoop:
        """Belong to the loop that runs."""
        loop = asyncio.get_running_loop()
        if self.loop is not loop:
            self.loop = loop
            self._thread_id = get_ident()
            self.flusher = Flusher(loop)
            self.acks = AckTimer(loop)
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

    def failed(self, what: str, error: BaseException, **details: str) -> HandlerFailed:
        """A function of the application's raised: the log learns everything, who hears of it an id.

        Args:
            what: The function, for the log.
            error: What it raised.
            details: What else is told of it.
        """
        self.counts.handler_errors += 1
        error_id = secrets.token_hex(8)
        self.logger.error("%s failed [%s]", what, error_id, exc_info=error)
        failure = HandlerFailed({**details, "id": error_id})
        failure.__cause__ = error
        return failure

    @property
    def elsewhere(self) -> bool:
        """Whether the caller is in another thread than the loop."""
        return self.loop is not None and get_ident() != self._thread_id

    def run(self, function: Callable[..., None], *args: Any) -> None:
        """Run a function on the loop: now, or in order when another thread asks.

        Once the loop is closed there is nobody left to send to, and nothing is done.
        """
        if self.loop is None or get_ident() == self._thread_id:
            function(*args)
        elif not self.loop.is_closed():
            # Without arguments, which asyncio logs when a callback fails or is slow.
            self.loop.call_soon_threadsafe(lambda: function(*args))
