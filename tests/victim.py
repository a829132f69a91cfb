"""The server that the attacks are on: `wse serve victim`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from wse import Attempt, Decision, Limits, Stats, WseConnection, WseServer

if os.environ.get("LOOP") == "asyncio":
    sys.modules["uvloop"] = None  # type: ignore[assignment]

limits = Limits(**json.loads(os.environ.get("LIMITS", "{}")))


async def identify(attempt: Attempt) -> Decision:
    if attempt.identity == "undecided":
        await asyncio.Event().wait()
    return attempt.accept(attempt.identity)


server = WseServer(identify, conn_per_user=10_000, limits=limits)
watching: asyncio.Task[None] | None = None
longest_hold = 0.0


@server.when.connected
def watch(_: WseConnection) -> None:
    """Note from the first device on how long others than this have the loop."""
    global watching  # noqa: PLW0603
    if watching is None:
        watching = asyncio.create_task(note_holds())


async def note_holds() -> None:
    global longest_hold  # noqa: PLW0603
    clock = asyncio.get_running_loop().time
    while True:
        before = clock()
        await asyncio.sleep(0.001)
        longest_hold = max(longest_hold, clock() - before - 0.001)


@server.register("held")
def held(_: WseConnection, __: Any) -> float:
    """The longest hold of the loop since this was asked last, in seconds."""
    global longest_hold
    held, longest_hold = longest_hold, 0.0
    return held


@server.register("stats")
def stats(_: WseConnection, __: Any) -> Stats:
    return server.stats()


@server.register("echo")
def echo(_: WseConnection, payload: Any) -> Any:
    return payload


@server.channel.on("say")
def say(_: WseConnection, __: Any) -> None:
    pass


@server.channel.on("wait")
async def wait(_: WseConnection, __: Any) -> None:
    await asyncio.Event().wait()


@server.channel.on("broadcast")
def broadcast(_: WseConnection, payload: Any) -> None:
    server.broadcast("news", payload)
