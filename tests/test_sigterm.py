"""A deploy's SIGTERM: devices are sent away before the web server closes their connections."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from programs import environment
from support import real_time
from webservers import bound

from wse import ConnectionFailed, WseClient, WseServer

APPLICATION = """
import asyncio
import os
import sys
from aiohttp import web
from fastapi import FastAPI
from starlette.routing import WebSocketRoute
from wse import WseServer

server = WseServer(lambda attempt: attempt.accept(attempt.identity))
other = WseServer(lambda attempt: attempt.accept(attempt.identity))
app = FastAPI(lifespan=server.lifespan if "LIFESPAN" in os.environ else None)
gate = asyncio.Event()

async def close(_):
    await asyncio.gather(server.close(), other.close())

def run_aiohttp():
    app = web.Application()
    app.router.add_get("/ws", server.aiohttp_handler(drain=30))
    app.router.add_get("/other", other.aiohttp_handler(drain=30))
    app.on_shutdown.append(close)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)

@server.register("wait")
async def wait(conn, payload):
    conn.send("waiting")
    await gate.wait()
    return "done"

@server.channel.on("go on")
@other.channel.on("go on")
def go_on(conn, payload):
    gate.set()

for path, one in (("/ws", server), ("/other", other)):
    app.router.routes.append(WebSocketRoute(path, one.asgi(drain=30)))
if __name__ == "__main__":
    run_aiohttp()
"""

PROGRAMS = {
    "uvicorn": ("-m", "uvicorn", "app:app", "--log-level", "warning", "--port"),
    "granian": ("-m", "granian", "--interface", "asgi", "app:app", "--no-log", "--port"),
    "hypercorn": ("-m", "hypercorn", "app:app", "--workers", "0", "--bind"),
    "aiohttp": ("app.py",),
}
CLOSING = (1012, "wse.server-closing")


class Guest:
    """A device, and how it was sent away."""

    def __init__(self, url: str) -> None:
        self.client = WseClient(url, reconnect=True)
        self.end: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.client.when.closed(self.closed)
        self.waiting = asyncio.Event()
        self.client.channel.on("waiting", lambda _: self.waiting.set())

    async def connect(self, cid: str) -> None:
        """It may have to wait for the web server to be up."""
        await self.client.connect(cid)
        self.client.reconnect = False

    async def call(self) -> asyncio.Task[str]:
        """A call that is under way, until somebody tells the server to go on."""
        calling = asyncio.create_task(self.client.call("wait"))
        await self.waiting.wait()
        return calling

    def closed(self, code: int, reason: str) -> None:
        if not self.end.done():
            self.end.set_result((int(code), reason))


async def come_and_go(url: str) -> None:
    """Until nobody is let in any more."""
    while True:
        async with WseClient(url) as client:
            await client.connect("carol")


@asynccontextmanager
async def deployed(
    name: str, directory: Path, **env: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A web server with the application, and its URL."""
    (directory / "app.py").write_text(APPLICATION, encoding="utf-8")
    with bound() as sock:
        port = sock.getsockname()[1]
    where = f"127.0.0.1:{port}" if name == "hypercorn" else str(port)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *PROGRAMS[name],
        where,
        cwd=directory,
        env={**environment(), **env},
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process, f"ws://127.0.0.1:{port}/ws"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@pytest.mark.parametrize(
    ("name", "lifespan"),
    [(name, lifespan) for name in PROGRAMS for lifespan in (True, False)][:-1],
)
@real_time
async def test_calls_under_way_end_before_their_device_goes(
    name: str, lifespan: bool, tmp_path: Path
) -> None:
    env = {"LIFESPAN": "yes"} if lifespan else {}
    async with deployed(name, tmp_path, **env) as (process, url):
        caller, other = Guest(url), Guest(url)
        await caller.connect("alice")
        await other.connect("bob")
        calling = await caller.call()
        process.send_signal(signal.SIGTERM)
        # Alice's turn to go is now and Bob's in fifteen seconds, but she has a call under way.
        with pytest.raises(ConnectionFailed, match=r"503|wse\.server-closing"):
            await come_and_go(url)
        other.client.send("go on")
        assert await calling == "done"
        assert await caller.end == CLOSING
        process.send_signal(signal.SIGTERM)
        assert await other.end in (CLOSING, (1012, ""), (1006, ""))
        await process.wait()


@pytest.mark.parametrize("name", PROGRAMS)
@real_time
async def test_all_servers_of_a_process_send_their_devices_away_at_once(
    name: str, tmp_path: Path
) -> None:
    async with deployed(name, tmp_path) as (process, url):
        caller = Guest(url)
        first, second = (Guest(url.replace("/ws", "/other")) for _ in range(2))
        for guest, cid in ((caller, "alice"), (first, "bob"), (second, "carol")):
            await guest.connect(cid)
        calling = await caller.call()
        process.send_signal(signal.SIGTERM)
        # Bob's turn at the other server is now, and Carol's in fifteen seconds.
        assert await first.end == CLOSING
        second.client.send("go on")
        assert await calling == "done"
        assert await caller.end == CLOSING
        process.send_signal(signal.SIGTERM)
        await process.wait()


@pytest.mark.parametrize("name", PROGRAMS)
@real_time
async def test_a_server_that_is_done_lets_nobody_in_while_another_is_not(
    name: str, tmp_path: Path
) -> None:
    async with deployed(name, tmp_path) as (process, url):
        caller, later = Guest(url), Guest(url)
        other = Guest(url.replace("/ws", "/other"))
        for guest, cid in ((caller, "alice"), (later, "bob"), (other, "carol")):
            await guest.connect(cid)
        calling = await caller.call()
        process.send_signal(signal.SIGTERM)
        assert await other.end == CLOSING
        for _ in range(30):
            with pytest.raises(ConnectionFailed, match=r"503|wse\.server-closing"):
                await WseClient(other.client.url).connect("carol")
        later.client.send("go on")
        assert await calling == "done"
        process.send_signal(signal.SIGTERM)
        await process.wait()


@pytest.mark.parametrize("drain", [0, 0.2])
@real_time
async def test_aiohttp_ends_soon_without_a_signal_too(drain: float) -> None:
    """It reads nothing any more by then, the replies to our close frames neither."""
    server = WseServer(lambda attempt: attempt.accept(attempt.identity))
    app = web.Application()
    app.router.add_get("/ws", server.aiohttp_handler())
    app.on_shutdown.append(lambda _: server.close(drain=drain))
    runner = web.AppRunner(app)
    await runner.setup()
    with bound() as sock:
        await web.SockSite(runner, sock).start()
        guest = Guest(f"ws://127.0.0.1:{sock.getsockname()[1]}/ws")
        await guest.connect("alice")
        async with asyncio.timeout(server.limits.close_timeout):
            await runner.cleanup()
    assert await guest.end == CLOSING


@pytest.fixture
def told_of_nothing() -> Iterator[None]:
    """A process that SIGTERM kills."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("told_of_nothing")
@real_time
async def test_who_is_told_of_nothing_is_left_alone() -> None:
    server = WseServer(lambda attempt: attempt.refuse())
    async with server.lifespan():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("told_of_nothing")
@real_time
async def test_a_loop_in_another_thread_leaves_signals_alone() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    before = signal.getsignal(signal.SIGTERM)

    async def live() -> None:
        async with WseServer(lambda attempt: attempt.refuse()).lifespan():
            assert signal.getsignal(signal.SIGTERM) is before

    await asyncio.to_thread(asyncio.run, live())
