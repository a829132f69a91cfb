"""One function of the application's: the payload it asks for, and how it is started."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from collections.abc import Awaitable, Callable, Collection, Coroutine
from functools import partial
from types import FunctionType, MethodType
from typing import Any, TypeGuard

import msgspec
import msgspec.inspect

from .protocol import Protocol, unfit

__all__ = ["EAGER", "Handler", "check_takes", "end_tasks", "is_awaitable", "start_task"]

EAGER = sys.version_info >= (3, 12)
"""Whether a task runs up to its first wait as it is made, at half the price of a scheduled one."""


def start_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]
) -> asyncio.Task[Any]:
    """A task, started at once where Python can; it may be done already."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
    return loop.create_task(coroutine)


async def end_tasks(tasks: Collection[asyncio.Task[Any]], seconds: float) -> None:
    """Wait for tasks, but for the one that asks; cancel those that take longer than this."""
    current = asyncio.current_task()
    others = [task for task in tasks if task is not current]
    if not others:
        return
    _, late = await asyncio.wait(others, timeout=seconds)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=seconds)


def is_awaitable(outcome: object) -> TypeGuard[Awaitable[Any]]:
    """Whether what a function returned wants to be awaited."""
    return hasattr(type(outcome), "__await__")


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
            resolved, or is nothing that a payload could be decoded to.
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
        self.kind = _decodable(_payload_annotation(function, takes), function)
        is_async = any(
            inspect.iscoroutinefunction(one)
            for one in (function, getattr(function, "__call__", None))  # noqa: B004
        )
        if blocking and (is_async or inspect.iscoroutinefunction(inspect.unwrap(function))):
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
        try:
            return self._decoders[protocol](payload)
        except KeyError as error:
            if protocol in self._decoders:
                raise unfit(error) from error
            self._decoders[protocol] = protocol.decoder(self.kind)
            return self.decode(payload, protocol)
        except Exception as error:
            raise unfit(error) from error


def _in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any) -> Any:
        return await asyncio.to_thread(function, *args)

    return run


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


def check_takes(function: Callable[..., Any], wanted: str) -> inspect.Signature:
    """Whether a function can be called with arguments such as `(conn, payload)`.

    Raises:
        TypeError: it cannot, or nothing can be known of its arguments.
    """
    takes = len([name for name in wanted.strip("()").split(",") if name])
    try:
        signature = inspect.signature(function)
    except ValueError as error:  # some built-in functions
        raise TypeError(f"{_name(function)} tells nothing of its arguments") from error
    try:
        signature.bind(*range(takes))
    except TypeError:
        raise TypeError(
            f"{_name(function)}{signature} must take {takes} positional argument"
            f"{'s' * (takes != 1)}: {wanted}"
        ) from None
    return signature


def _payload_annotation(function: Callable[..., Any], takes: int) -> Any:
    signature = check_takes(function, "(payload)" if takes == 1 else "(conn, payload)")
    positional = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD)
    ]
    annotation = positional[min(takes, len(positional)) - 1].annotation
    if isinstance(annotation, str):
        annotation = _resolve(function, annotation)
    return Any if annotation in (inspect.Parameter.empty, object) else annotation


def _decodable(annotation: Any, function: Callable[..., Any]) -> Any:
    try:
        known = not isinstance(msgspec.inspect.type_info(annotation), msgspec.inspect.CustomType)
        msgspec.json.Decoder(annotation)
    except Exception as error:
        raise TypeError(f"the payload of {_name(function)} cannot be decoded: {error}") from error
    if not known:
        raise TypeError(f"the payload of {_name(function)} cannot be decoded to {annotation!r}")
    return annotation


def _resolve(function: Callable[..., Any], annotation: str) -> Any:
    """An annotation written as a string, or under `from __future__ import annotations`."""
    try:
        return eval(annotation, _names_in_sight(_written(function)))  # noqa: S307 - the application's own source
    except Exception as error:
        raise TypeError(
            f"the payload annotation {annotation!r} of {_name(function)} is unknown: {error}"
        ) from error


def _written(function: Callable[..., Any]) -> FunctionType:
    """The `def` under decorators, partials, methods and callable objects."""
    written: Any = inspect.unwrap(function)
    match written:
        case FunctionType():
            return written
        case partial():
            return _written(written.func)
        case MethodType():
            return _written(written.__func__)
        case _:
            return _written(type(written).__call__)


def _names_in_sight(function: FunctionType) -> dict[str, Any]:
    """Its globals, and of its closure what is bound already."""
    names = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):
            names[name] = cell.cell_contents
    return names
