"""Remote procedures that this side offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload
from weakref import WeakSet

from .errors import AlreadyRegistered
from .handler import Handler
from .protocol import check_type

__all__ = ["Procedures"]

F = TypeVar("F", bound=Callable[..., Any])


class Procedures:
    """Names and the functions behind them, one each.

    A server and a client have one each; a module may have one of its own and leave it to
    `server.include`.

    Args:
        takes: The arguments of its functions: 2 for a server's, `(conn, payload)`, 1 for a
            client's, `(payload)`.
    """

    def __init__(self, *, takes: int = 2) -> None:
        self.takes = takes
        self._handlers: dict[str, Handler] = {}
        self.get = self._handlers.get
        """The function behind a name, if there is one."""
        self._including: WeakSet[Procedures] = WeakSet()
        self._included: list[Procedures] = []  # alive as long as this, for what they still add

    @overload
    def register(
        self, name: str, *, ordered: bool = ..., blocking: bool = ...
    ) -> Callable[[F], F]: ...
    @overload
    def register(
        self, name: str, function: F, *, ordered: bool = ..., blocking: bool = ...
    ) -> F: ...
    def register(
        self, name: str, function: F | None = None, *, ordered: bool = False, blocking: bool = False
    ) -> F | Callable[[F], F]:
        """Offer `function` under this name; a decorator when none is given.

        What it returns is the caller's result. A `WseError` that it raises reaches the caller with
        its code and details; of any other exception the caller learns an id, the log everything.

        Args:
            name: What the other side calls.
            function: Plain or async. The annotation of its payload is decoded and checked.
            ordered: Wait for the call before to end; later messages of the device wait behind it.
            blocking: It may block: run it in a thread.

        Raises:
            AlreadyRegistered: there is one of this name.
            ValueError: a name that begins with `~wse:`.
            TypeError: a function that cannot take the arguments, or whose payload's annotation
                cannot be resolved.
        """
        check_type(name)

        def add(function: F) -> F:
            self._set(name, Handler(function, self.takes, ordered=ordered, blocking=blocking))
            return function

        return add if function is None else add(function)

    def unregister(self, name: str) -> None:
        """Offer it no longer; what is not there is left alone."""
        handler = self._handlers.get(name)
        if handler is not None:
            self._remove(name, handler)

    def include(self, other: Procedures) -> None:
        """Take in other procedures, those that are there and those that will be.

        Raises:
            AlreadyRegistered: a name is in both.
        """
        if other.takes != self.takes:
            raise TypeError(
                "procedures of a server take (conn, payload), those of a client (payload)"
            )
        for name in other._handlers:
            self._check_free(name)
        for name, handler in other._handlers.items():
            self._set(name, handler)
        other._including.add(self)
        self._included.append(other)

    def _check_free(self, name: str) -> None:
        if name in self._handlers:
            raise AlreadyRegistered({"name": name})
        for procedures in self._including:
            procedures._check_free(name)

    def _set(self, name: str, handler: Handler) -> None:
        self._check_free(name)
        self._handlers[name] = handler
        for procedures in self._including:
            procedures._set(name, handler)

    def _remove(self, name: str, handler: Handler) -> None:
        if self._handlers.get(name) is handler:
            del self._handlers[name]
        for procedures in self._including:
            procedures._remove(name, handler)
