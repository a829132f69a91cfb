"""Typed messages: which handlers a type has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload
from weakref import WeakSet

from .handler import Handler
from .protocol import check_type

__all__ = ["Channel"]

F = TypeVar("F", bound=Callable[..., Any])


class Channel:
    """Message types and their handlers.

    A server and a client have one each; a module may have one of its own and leave it to
    `server.include`. Handlers of a type run in the order in which they were added.

    Args:
        takes: The arguments of its handlers: 2 for a server's, `(conn, payload)`, 1 for a
            client's, `(payload)`.
    """

    def __init__(self, *, takes: int = 2) -> None:
        self.takes = takes
        self._handlers: dict[str, tuple[_Listener, ...]] = {}
        self._including: WeakSet[Channel] = WeakSet()
        self._included: list[Channel] = []  # alive as long as this, for what they still add

    @overload
    def on(self, type: str, *, ordered: bool = ..., blocking: bool = ...) -> Callable[[F], F]: ...
    @overload
    def on(self, type: str, handler: F, *, ordered: bool = ..., blocking: bool = ...) -> F: ...
    def on(
        self, type: str, handler: F | None = None, *, ordered: bool = False, blocking: bool = False
    ) -> F | Callable[[F], F]:
        """Call `handler` for every message of this type; a decorator when none is given.

        Args:
            type: The message type.
            handler: Plain or async. The annotation of its payload is decoded and checked.
            ordered: Wait for the handler of the message before to end; later messages of the
                device wait behind it.
            blocking: It may block: run it in a thread.

        Raises:
            ValueError: a type that begins with `~wse:`.
            TypeError: a handler that cannot take the arguments, or whose payload's annotation
                cannot be resolved.
        """
        return self._add(type, handler, once=False, ordered=ordered, blocking=blocking)

    @overload
    def once(self, type: str) -> Callable[[F], F]: ...
    @overload
    def once(self, type: str, handler: F) -> F: ...
    def once(self, type: str, handler: F | None = None) -> F | Callable[[F], F]:
        """`on`, for the next message of this type only, whoever sends it."""
        return self._add(type, handler, once=True, ordered=False, blocking=False)

    def off(self, type: str, handler: Callable[..., Any] | None = None) -> None:
        """Remove a handler, or all of a type; what is not there is left alone."""
        self._remove(
            type,
            [
                listener
                for listener in self._handlers.get(type, ())
                if handler is None or listener.registered == handler
            ],
        )

    def include(self, other: Channel) -> None:
        """Take in another channel's handlers, those that it has and those that it will have.

        One that comes by several ways is taken in once.
        """
        if other.takes != self.takes:
            raise TypeError(
                "handlers of a server take (conn, payload), those of a client (payload)"
            )
        other._including.add(self)
        self._included.append(other)
        for type, listeners in other._handlers.items():
            for listener in listeners:
                self._append(type, listener)

    def take(self, type: str) -> tuple[Handler, ...]:
        """The handlers for one message that has come; those that want one only are removed."""
        listeners = self._handlers.get(type)
        if listeners is None:
            return ()
        for listener in listeners:
            if listener.once:
                listener.owner._remove(type, [listener])
        return listeners

    def _add(
        self, type: str, handler: F | None, *, once: bool, ordered: bool, blocking: bool
    ) -> F | Callable[[F], F]:
        check_type(type)

        def add(function: F) -> F:
            listener = _Listener(function, self, once=once, ordered=ordered, blocking=blocking)
            self._append(type, listener)
            return function

        return add if handler is None else add(handler)

    def _append(self, type: str, listener: _Listener) -> None:
        listeners = self._handlers.get(type, ())
        if listener in listeners:
            return
        self._handlers[type] = (*listeners, listener)
        for channel in self._including:
            channel._append(type, listener)

    def _remove(self, type: str, listeners: list[_Listener]) -> None:
        before = self._handlers.get(type, ())
        kept = tuple(one for one in before if one not in listeners)
        if kept == before:
            return
        if kept:
            self._handlers[type] = kept
        else:
            self._handlers.pop(type, None)
        for channel in self._including:
            channel._remove(type, listeners)


class _Listener(Handler):
    """A handler of a channel, which remembers what was registered, where, and for how long."""

    __slots__ = ("once", "owner", "registered")

    def __init__(
        self,
        function: Callable[..., Any],
        owner: Channel,
        *,
        once: bool,
        ordered: bool,
        blocking: bool,
    ) -> None:
        super().__init__(function, owner.takes, ordered=ordered, blocking=blocking)
        self.registered = function
        self.owner = owner
        self.once = once
