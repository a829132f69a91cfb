"""Each example runs as its first line says, and does what it is there to show."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from programs import environment
from support import real_time
from webservers import bound

from wse import ConnectionFailed, NotAuthorized, WseClient

EXAMPLES = Path(__file__).parent.parent / "examples"


@asynccontextmanager
async def running(name: str) -> AsyncIterator[int]:
    """The example's own command, at a free port."""
    first = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()[0]
    command = re.search(r"`([^`]+)`", first)
    assert command is not None
    program, target, *_ = command[1].split()
    with bound() as sock:
        port: int = sock.getsockname()[1]
    if program == "uvicorn":
        arguments = ["-m", "uvicorn", target, "--port", str(port), "--log-level", "warning"]
    else:
        source = (EXAMPLES / target).read_text(encoding="utf-8")
        source = re.sub(r"port=\d{4}", f"port={port}", source)
        arguments = ["-c", source]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", *arguments, cwd=EXAMPLES, env=environment()
    )
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        status = await process.wait()
    assert status in (0, -signal.SIGTERM), name


class Device:
    """A client and what it has heard."""

    def __init__(self, port: int, path: str = "/ws", **options: Any) -> None:
        self.client = WseClient(f"ws://127.0.0.1:{port}{path}", reconnect=True, **options)
        self.heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.client.when.ignored(lambda *message: self.heard.put_nowait(message))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()


def test_each_example_is_short_and_tested() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert 15 <= len(path.read_text(encoding="utf-8").splitlines()) <= 60, path.name
        assert f'running("{path.name}")' in Path(__file__).read_text(encoding="utf-8")


@real_time
async def test_plain() -> None:
    async with running("plain.py") as port, Device(port) as alice, Device(port) as bob:
        await alice.client.connect("key-of-alice")
        assert await bob.client.connect("key-of-bob") == {"people": ["alice"]}
        assert await bob.client.call("people") == ["alice", "bob"]
        alice.client.send("say", "hello")
        assert await bob.heard.get() == ("said", {"who": "alice", "text": "hello"})
        with pytest.raises(NotAuthorized):
            await Device(port).client.connect("another key")


@real_time
async def test_with_fastapi() -> None:
    async with running("with_fastapi.py") as port, Device(port) as phone, Device(port) as laptop:
        for device in (phone, laptop):
            await device.client.connect("key-of-alice")
        with pytest.raises(NotAuthorized):
            await Device(port).client.connect("another key")
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            async with http.post("/orders/7/paid", params={"who": "alice"}) as answer:
                assert await answer.json() == {"online": True}
            async with http.get("/ws") as answer:
                assert answer.status == 426
            for device in (phone, laptop):
                assert await device.heard.get() == ("paid", {"order": 7})
            phone.client.send("typing", "lobby")
            assert await laptop.heard.get() == ("typing", {"who": "alice", "room": "lobby"})
            async with http.get("/users/alice/devices") as answer:
                assert len(await answer.json()) == 2
            async with http.delete("/users/alice") as answer:
                assert answer.status == 200
            for device in (phone, laptop):
                await device.client.wait_closed()
            async with http.get("/users/alice/devices") as answer:
                assert await answer.json() == []


@real_time
async def test_with_aiohttp() -> None:
    async with running("with_aiohttp.py") as port, Device(port, "/ws?x=1") as alice:
        await alice.client.connect("key-of-alice")
        assert await alice.client.call("where") == "/ws?x=1"
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
            http.post("/users/alice/paid", json={"order": 7}) as answer,
        ):
            assert await answer.json() == {"online": True}
        assert await alice.heard.get() == ("paid", {"order": 7})


@real_time
async def test_with_django() -> None:
    async with (
        running("with_django.py") as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        async with Device(port) as stranger:
            with pytest.raises(NotAuthorized):
                await stranger.client.connect()
        async with http.get("/sign-in/alice") as answer:
            assert await answer.json() == {"who": "alice"}
            cookie = f"sessionid={answer.cookies['sessionid'].value}"
        async with Device(port, headers={"Cookie": cookie}) as alice:
            await alice.client.connect()
            async with http.get("/tell/alice", params={"text": "hello"}) as answer:
                assert await answer.json() == {"online": True}
            assert await alice.heard.get() == ("told", "hello")
        async with http.get("/ws") as answer:
            assert answer.status == 426
        with pytest.raises(ConnectionFailed) as caught:
            await WseClient(f"ws://127.0.0.1:{port}/other").connect()
        assert caught.value.details == {"status": 403}
