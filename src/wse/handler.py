"""One function of the application's: the payload it asks for, and how it is started."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from .protocol import Protocol, decode_checked

__all__ = ["EAGER", "Handler", "start_task"]

EAGER = sys.version_info >= (3, 12)
"""Whether a task runs up to its first wait as it is made, at half the price of a scheduled one."""


def start_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]
) -> asyncio.Task[Any]:
    """A task, started at once where Python can; it may be done already."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
    return loop.create_task(coroutine)


class Handler:
    """A function, the type of its payload, and its manner.

    Args:
        function: Plain or async; its last parameter is the payload, whose annotation is decoded
            and checked. No annotation, or Any, gives plain data.
        takes: How many arguments it will be given.
        ordered: Whether each run waits for the one before it to end.
        blocking: Whether it may block, and so runs in a thread.

    Raises:
        TypeError: it cannot take that many arguments, or its payload's annotation cannot be
            resolved.
    """

    __slots__ = ("_decoders", "function", "is_async", "kind", "ordered")

    def __init__(
        self,
        function: Callable[..., Any],
        takes: int,
        *,
        ordered: bool = False,
        blocking: bool = False,
    ) -> None:
        self.kind = _payload_annotation(function, takes)
        is_async = inspect.iscoroutinefunction(inspect.unwrap(function)) or (
            inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
        )
        if blocking and is_async:
            raise TypeError(f"{_name(function)} is async, it cannot be blocking")
        self.function = _in_thread(function) if blocking else function
        self.is_async = is_async or blocking
        self.ordered = ordered
        self._decoders: dict[Protocol, Callable[[Any], Any]] = {}

    def decode(self, payload: Any, protocol: Protocol) -> Any:
        """The payload as the function wants it.

        Raises:
            InvalidPayload: it does not fit.
        """
        decoder = self._decoders.get(protocol)
        if decoder is None:
            decoder = self._decoders[protocol] = protocol.decoder(self.kind)
        return decode_checked(decoder, payload)


def _in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any) -> Any:
        return await asyncio.to_thread(function, *args)

    return run


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


def _payload_annotation(function: Callable[..., Any], takes: int) -> Any:
    signature = inspect.signature(function)
    try:
        signature.bind(*range(takes))
    except TypeError:
        wanted = "(payload)" if takes == 1 else "(conn, payload)"
        raise TypeError(
            f"{_name(function)}{signature} must take {takes} positional argument"
            f"{'s' * (takes > 1)}: {wanted}"
        ) from None
    positional = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    annotation = positional[min(takes, len(positional)) - 1].annotation
    if annotation is inspect.Parameter.empty:
        return Any
    return _resolve(function, annotation) if isinstance(annotation, str) else annotation


def _resolve(function: Callable[..., Any], annotation: str) -> Any:
    """An annotation written as a string, or under `from __future__ import annotations`."""
    plain = inspect.unwrap(getattr(function, "func", getattr(function, "__func__", function)))
    if not inspect.isfunction(plain):
        plain = type(plain).__call__
    names = {**plain.__globals__, **inspect.getclosurevars(plain).nonlocals}
    try:
        return eval(annotation, names)  # noqa: S307 - the application's own source
    except Exception as error:
        raise TypeError(
            f"the payload annotation {annotation!r} of {_name(function)} is unknown: {error}"
        ) from error
