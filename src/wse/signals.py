"""`when.*`: what happens, told to whoever listens."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from .handler import start_task

__all__ = ["Emitter", "Signal"]

P = ParamSpec("P")
R = TypeVar("R")


class Emitter:
    """Runs the handlers of one owner's signals, one event after the other.

    An event that a handler causes is told after the one at hand, so that everybody sees the same
    order. What a handler raises goes to `failed`; asynchronous ones run as tasks held here.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self.failed: Callable[[str, Exception], None] = _nobody_cares
        self.tasks: set[asyncio.Task[Any]] = set()
        self._waiting: deque[tuple[str, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._busy = False

    def tell(
        self, name: str, handlers: tuple[Callable[..., Any], ...], args: tuple[Any, ...]
    ) -> None:
        """Call the handlers, now or after the event at hand."""
        self._waiting.extend((name, handler, args) for handler in handlers)
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting:
                self._run(*self._waiting.popleft())
        finally:
            self._busy = False

    def hold(self, name: str, coroutine: Any) -> None:
        """Run a handler's coroutine as a task, to its end or to `cancel`."""
        task = start_task(asyncio.get_running_loop(), self._guard(name, coroutine))
        if not task.done():
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def cancel(self) -> None:
        """Cancel the asynchronous handlers that still run, but for the one that asks."""
        current = asyncio.current_task()
        for task in self.tasks:
            if task is not current:
                task.cancel()

    def _run(self, name: str, handler: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            outcome = handler(*args)
        except Exception as error:
            self._report(name, error)
        else:
            if asyncio.iscoroutine(outcome):
                self.hold(name, outcome)

    async def _guard(self, name: str, coroutine: Any) -> None:
        try:
            await coroutine
        except Exception as error:
            self._report(name, error)

    def _report(self, name: str, error: Exception) -> None:
        self.logger.error("a handler of %s raised", name, exc_info=error)
        if name != "error":
            self.failed(name, error)


def _nobody_cares(_: str, __: Exception) -> None:
    pass


class Signal(Generic[P]):
    """One kind of event. Call it with a handler, or decorate one, to listen.

    Args:
        emitter: Who runs the handlers.
        name: For logs and `repr`.
        remembered: Whether a handler added later is called at once with the last event.
    """

    def __init__(self, emitter: Emitter, name: str, *, remembered: bool = False) -> None:
        self.name = name
        self._emitter = emitter
        self._remembered = remembered
        self._last: tuple[Any, ...] | None = None
        self._handlers: tuple[Callable[..., Any], ...] = ()
        self._once: set[Callable[..., Any]] = set()

    def __repr__(self) -> str:
        return f"<Signal {self.name}>"

    def __call__(self, handler: Callable[P, R]) -> Callable[P, R]:
        """Call `handler`, plain or async, for every such event."""
        self._handlers = (*self._handlers, handler)
        if self._last is not None:
            self._emitter.tell(self.name, (handler,), self._last)
        return handler

    def once(self, handler: Callable[P, R]) -> Callable[P, R]:
        """Call `handler` for the next such event only."""
        if self._last is not None:
            self._emitter.tell(self.name, (handler,), self._last)
        else:
            self._once.add(handler)
            self._handlers = (*self._handlers, handler)
        return handler

    def off(self, handler: Callable[..., Any]) -> None:
        """Remove a handler; one that is not there is left alone."""
        self._handlers = tuple(one for one in self._handlers if one != handler)
        self._once.discard(handler)

    def emit(self, *args: P.args, **_: P.kwargs) -> None:
        """Tell the handlers."""
        if self._remembered:
            self._last = args
        handlers = self._handlers
        for handler in tuple(self._once):
            self.off(handler)
        if handlers:
            self._emitter.tell(self.name, handlers, args)
