"""`when.*`: what happens, told to whoever listens."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar

from .handler import check_takes, is_awaitable, start_task

__all__ = ["Emitter", "Signal"]

P = ParamSpec("P")
R = TypeVar("R")


_BY_PEERS = frozenset({"ignored", "error"})
"""What any message of a peer can cause."""


class Emitter:
    """Runs the handlers of one owner's signals, one event after the other.

    An event that a handler causes is told after the one at hand, so that everybody sees the same
    order. What a handler raises goes to `failed`; asynchronous ones run as tasks held here.
    """

    def __init__(self, logger: logging.Logger, max_handlers: int) -> None:
        self.logger = logger
        self._max_handlers = max_handlers
        self.failed: Callable[[str, BaseException], None] = _nobody_cares
        self.tasks: set[asyncio.Task[Any]] = set()
        self._by_peers: set[asyncio.Task[Any]] = set()
        self._waiting: deque[tuple[str, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._busy = False

    def tell(
        self, name: str, handlers: tuple[Callable[..., Any], ...], args: tuple[Any, ...]
    ) -> None:
        """Call the handlers, now or after the event at hand."""
        self._waiting.extend((name, handler, args) for handler in handlers)
        if not self._busy:
            self._tell_waiting()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Tell what is emitted meanwhile at the end, so that no handler comes in between."""
        busy, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = busy
        if not busy:
            self._tell_waiting()

    def hold(self, name: str, coroutine: Any) -> None:
        """Run a handler's coroutine as a task."""
        task = start_task(asyncio.get_running_loop(), self._guard(name, coroutine))
        if task.done():
            return
        for held in (self.tasks, self._by_peers) if name in _BY_PEERS else (self.tasks,):
            held.add(task)
            task.add_done_callback(held.discard)

    def _tell_waiting(self) -> None:
        self._busy = True
        try:
            while self._waiting:
                self._run(*self._waiting.popleft())
        finally:
            self._busy = False

    def _run(self, name: str, handler: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            outcome = handler(*args)
        except (Exception, asyncio.CancelledError) as error:
            self._report(name, error)
        else:
            if not is_awaitable(outcome):
                return
            if name in _BY_PEERS and len(self._by_peers) >= self._max_handlers:
                self.logger.warning("too many handlers of %s at work, one is left out", name)
                if isinstance(outcome, Coroutine):
                    outcome.close()
                return
            self.hold(name, outcome)

    async def _guard(self, name: str, coroutine: Any) -> None:
        try:
            await coroutine
        except Exception as error:
            self._report(name, error)

    def _report(self, name: str, error: BaseException) -> None:
        self.logger.error("a handler of %s raised", name, exc_info=error)
        if name != "error":
            self.failed(name, error)


def _nobody_cares(_: str, __: BaseException) -> None:
    pass


class Signal(Generic[P]):
    """One kind of event. Call it with a handler, or decorate one, to listen.

    Args:
        emitter: Who runs the handlers.
        name: For logs and `repr`.
        wants: The arguments of its handlers, such as `(conn, code, reason)`.
        remembered: Whether a handler added later is called at once with the last event.
    """

    def __init__(
        self, emitter: Emitter, name: str, wants: str, *, remembered: bool = False
    ) -> None:
        self.name = name
        self._emitter = emitter
        self._wants = wants
        self._remembered = remembered
        self._last: tuple[Any, ...] | None = None
        self._handlers: tuple[tuple[Callable[..., Any], bool], ...] = ()

    def __repr__(self) -> str:
        return f"<Signal {self.name}>"

    def __call__(self, handler: Callable[P, R]) -> Callable[P, R]:
        """Call `handler`, plain or async, for every such event.

        Raises:
            TypeError: it cannot take the event's arguments.
        """
        check_takes(handler, self._wants)
        self._handlers = (*self._handlers, (handler, False))
        if self._last is not None:
            self._emitter.tell(self.name, (handler,), self._last)
        return handler

    def once(self, handler: Callable[P, R]) -> Callable[P, R]:
        """Call `handler` for the next such event only.

        Raises:
            TypeError: it cannot take the event's arguments.
        """
        check_takes(handler, self._wants)
        if self._last is not None:
            self._emitter.tell(self.name, (handler,), self._last)
        else:
            self._handlers = (*self._handlers, (handler, True))
        return handler

    def off(self, handler: Callable[..., Any]) -> None:
        """Remove a handler; one that is not there is left alone."""
        self._handlers = tuple(one for one in self._handlers if one[0] != handler)

    def emit(self, *args: P.args, **_: P.kwargs) -> None:
        """Tell the handlers."""
        if self._remembered:
            self._last = args
        told = self._handlers
        if told:
            self._handlers = tuple(one for one in told if not one[1])
            self._emitter.tell(self.name, tuple(handler for handler, _ in told), args)
