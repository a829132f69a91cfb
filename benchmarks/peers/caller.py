"""What the clients share: they are measured themselves, and call a server that is faster."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from ..cpu import cpu_seconds
from ..load import Figure
from ..wire import DIALECTS, payload_of
from .common import run

__all__ = ["PAYLOAD", "Client", "measure"]

PAYLOAD = payload_of(DIALECTS["wse"], 56)
Call = Callable[[], Awaitable[Any]]
Client = Callable[[str, Callable[[Call], Awaitable[None]]], Awaitable[None]]
"""Connects to a URL and hands on how it calls."""


def measure(client: Client) -> None:
    """Call as the command line says, and print a figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server", type=int, required=True, help="the server's process")
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warmup", type=float, required=True)
    options = parser.parse_args()

    async def pump(call: Call) -> None:
        if await call() != PAYLOAD:
            raise ValueError("a wrong answer")
        await _pump(call, options.in_flight, options.warmup)
        before = cpu_seconds(os.getpid()), time.perf_counter(), cpu_seconds(options.server)
        count = await _pump(call, options.in_flight, options.seconds)
        cpu, wall, server = (
            cpu_seconds(os.getpid()) - before[0],
            time.perf_counter() - before[1],
            cpu_seconds(options.server) - before[2],
        )
        json.dump(asdict(Figure(count / cpu, count, cpu, wall, server / wall)), sys.stdout)

    async def main() -> None:
        await client(f"ws://127.0.0.1:{options.port}", pump)

    run(main())


async def _pump(call: Call, in_flight: int, seconds: float) -> int:
    """Call for so long, so many at a time; how many calls that were."""
    until = time.perf_counter() + seconds

    async def one() -> int:
        count = 0
        while time.perf_counter() < until:
            await call()
            count += 1
        return count

    return sum(await asyncio.gather(*(one() for _ in range(in_flight))))
