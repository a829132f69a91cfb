"""What several test files share."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


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
