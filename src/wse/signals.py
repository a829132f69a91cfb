"""`when.*`: what happens, told to whoever listens."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar

from .handler import check_takes, is_awaitable, start_task
from .limits import Limits

__all__ = ["Emitter", "Signal"]

P = ParamSpec("P")
R = TypeVar("R")


class Emitter:
    """Runs the handlers of one owner's signals, one event after the other.

    An event that a handler causes is told after the one at hand, so that everybody sees the same
    order. What a handler raises goes to `failed`; asynchronous ones run as tasks held here.
    """

    def __init__(self, logger: logging.Logger, limits: Limits) -> None:
        self.logger = logger
        self._limits = limits
        self.failed: Callable[[str, BaseException], None] = _nobody_cares
        self.tasks: set[asyncio.Task[Any]] = set()
        self._by_peers: Counter[object] = Counter()
        self._left_out = False
        self._waiting: deque[tuple[Signal[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._busy = False

    def tell(
        self,
        signal: Signal[Any],
        handlers: tuple[Callable[..., Any], ...],
        args: tuple[Any, ...],
    ) -> None:
        """Call the handlers, now or after the event at hand."""
        self._waiting.extend((signal, handler, args) for handler in handlers)
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

    def _tell_waiting(self) -> None:
        self._busy = True
        try:
            while self._waiting:
                self._run(*self._waiting.popleft())
        finally:
            self._busy = False

    def _run(self, signal: Signal[Any], handler: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            outcome = handler(*args)
        except (Exception, asyncio.CancelledError) as error:
            self._report(signal.name, error)
            return
        if not is_awaitable(outcome):
            return
        peer = None if signal.peer_of is None else (signal.peer_of(*args),)
        if self._may_start(signal.name, peer):
            self._start(signal.name, outcome, peer)
        elif isinstance(outcome, Coroutine):
            outcome.close()

    def _may_start(self, name: str, peer: tuple[object] | None) -> bool:
        if peer is None or (
            self._by_peers[peer] < self._limits.max_handlers
            and self._by_peers.total() < self._limits.max_event_handlers
        ):
            return True
        if not self._left_out:
            self._left_out = True
            self.logger.warning("too many handlers of %s at work, some are left out", name)
        return False

    def _start(self, name: str, coroutine: Any, peer: tuple[object] | None) -> None:
        task = start_task(asyncio.get_running_loop(), self._guard(name, coroutine))
        if task.done():
            return
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if peer is not None:
            self._by_peers[peer] += 1
            task.add_done_callback(lambda _: self._ended(peer))

    def _ended(self, peer: tuple[object]) -> None:
        self._by_peers[peer] -= 1
        if not self._by_peers[peer]:
            del self._by_peers[peer]
        self._left_out = self._left_out and bool(self._by_peers)

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
        peer_of: Whose message causes it, by its arguments. Any message may: so many asynchronous
            handlers at work for one peer, and for all, and further ones are left out.
    """

    def __init__(
        self,
        emitter: Emitter,
        name: str,
        wants: str,
        *,
        remembered: bool = False,
        peer_of: Callable[P, object] | None = None,
    ) -> None:
        self.name = name
        self._emitter = emitter
        self._wants = wants
        self._remembered = remembered
        self.peer_of = peer_of
        self._last: tuple[Any, ...] | None = None
        self._handlers: tuple[tuple[Callable[..., Any], bool], ...] = ()

    def __repr__(self) -> str:
        return f"<Signal {self.name}>"

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._handlers)

    def __call__(self, handler: Callable[P, R]) -> Callable[P, R]:
        """Call `handler`, plain or async, for every such event.

        Raises:
            TypeError: it cannot take the event's arguments.
        """
        check_takes(handler, self._wants)
        self._handlers = (*self._handlers, (handler, False))
        if self._last is not None:
            self._emitter.tell(self, (handler,), self._last)
        return handler

    def once(self, handler: Callable[P, R]) -> Callable[P, R]:
        """Call `handler` for the next such event only.

        Raises:
            TypeError: it cannot take the event's arguments.
        """
        check_takes(handler, self._wants)
        if self._last is not None:
            self._emitter.tell(self, (handler,), self._last)
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
            self._emitter.tell(self, tuple(handler for handler, _ in told), args)
