"""What several test files share."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

SECRET = "hush-9f3c"
"""Planted in the text of what the tests raise as an application would: no peer may ever see it."""
TOKEN = "token-5b1e"
"""Planted in what proves who somebody is: no log may ever have it."""

P = ParamSpec("P")
T = TypeVar("T")


class Boom(Exception):
    """What an application did not expect."""


def boom(*_: Any) -> Any:
    """Any function of an application, failing."""
    raise Boom(SECRET)


def bounded(
    seconds: float,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, T]]:
    """Run an async test on a real loop, for so long at most."""

    def decorate(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
        @functools.wraps(test)
        def plain(*args: P.args, **kwargs: P.kwargs) -> T:
            async def run() -> T:
                async with asyncio.timeout(seconds):
                    return await test(*args, **kwargs)

            return asyncio.run(run())

        return plain

    return decorate


def real_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Run an async test on a real loop, for what only real sockets show; bounded in time."""
    return bounded(30)(test)


@contextmanager
def nothing_left_of(kind: type[object]) -> Iterator[None]:
    """What is made of this kind meanwhile is gone at the end, without the collector's help."""
    gc.collect()
    before = [one for one in gc.get_objects() if isinstance(one, kind)]
    gc.disable()
    try:
        yield
        left = [one for one in gc.get_objects() if isinstance(one, kind)]
        assert len(left) == len(before)
    finally:
        gc.enable()
