"""The server as an ASGI application: what is ours, and the frameworks that route to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from litestar import Litestar, get
from litestar.handlers import asgi
from quart import Quart
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from support import SECRET, real_time
from webservers import ASGI_SERVERS, WEB_SERVERS, serving

from wse import Attempt, ConnectionFailed, Decision, Limits, WseClient, WseServer
from wse.pings import warn_of_pings
from wse.transports.asgi import AsgiApplication


def make_server(**options: Any) -> WseServer:
    return WseServer(lambda attempt: attempt.accept(attempt.identity), **options)


async def get_page(port: int, path: str, headers: Mapping[str, str] = {}) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        request = Request(f"http://127.0.0.1:{port}{path}", headers=dict(headers))
        try:
            with urlopen(request, timeout=10) as answer:  # noqa: S310 - of our own server
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


class Peer:
    """An ASGI server with one connection, by hand."""

    def __init__(self, **scope: Any) -> None:
        self.scope = {
            "type": "websocket",
            "path": "/w s",
            "raw_path": b"/w%20s",
            "query_string": b"token=t&x=1",
            "headers": [(b"host", b"h"), (b"cookie", b"a=1"), (b"cookie", b"b=2")],
            "client": ("192.0.2.1", 1234),
            "subprotocols": ["wse-default-json"],
            **scope,
        }
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.coming.put_nowait({"type": "websocket.connect"})

    def run(self, application: AsgiApplication) -> asyncio.Task[None]:
        return asyncio.create_task(
            application(self.scope, self.coming.get, self.sent.put)  # type: ignore[arg-type]
        )

    def say(self, **message: Any) -> None:
        self.coming.put_nowait({"type": "websocket.receive", **message})

    async def accepted(self, identity: str = "alice") -> None:
        assert await self.sent.get() == {
            "type": "websocket.accept",
            "subprotocol": "wse-default-json",
        }
        self.say(text=json.dumps(["~wse:hi", {"identity": identity}]))
        assert json.loads((await self.sent.get())["text"])[0] == "~wse:welcome"


# -- one connection --------------------------------------------------------------------------------


@real_time
async def test_identify_and_handlers_see_the_scope() -> None:
    seen: list[Attempt] = []

    def identify(attempt: Attempt) -> Decision:
        seen.append(attempt)
        return attempt.accept(attempt.context["app"])

    server = WseServer(identify)
    peer = Peer(app="the application")
    running = peer.run(server.asgi())
    await peer.accepted()
    (attempt,) = seen
    assert (attempt.path, attempt.query) == ("/w%20s", {"token": "t", "x": "1"})
    assert (attempt.remote_addr, attempt.cookies) == ("192.0.2.1", {"a": "1", "b": "2"})
    (conn,) = server.clients["the application"].conns.values()
    assert conn.context is peer.scope
    await server.close()
    await running


@pytest.mark.parametrize(
    "scope",
    [
        {"client": None, "raw_path": None},
        {"client": ("", 0), "query_string": b"", "extensions": None},
    ],
)
@real_time
async def test_what_a_server_may_leave_out(scope: dict[str, Any]) -> None:
    server = make_server()
    peer = Peer(**scope)
    running = peer.run(server.asgi())
    await peer.accepted()
    (conn,) = server.clients["alice"].conns.values()
    assert not conn.remote_addr
    peer.coming.put_nowait({"type": "websocket.disconnect"})
    await running
    assert server.stats().closed == {"1006": 1}


@real_time
async def test_text_and_bytes_are_both_heard_and_neither_breaks_anything() -> None:
    server = make_server()
    heard: list[Any] = []
    server.channel.on("say", lambda _, words: heard.append(words))
    peer = Peer()
    running = peer.run(server.asgi())
    await peer.accepted()
    peer.say(bytes=b'["say",1]')
    peer.say(text=None, bytes=b'["say",2]')
    peer.say(text='["say",3]', bytes=None)
    peer.say(text='["say","\ud800"]')  # which no server should hand over
    peer.say()
    assert await peer.sent.get() == {
        "type": "websocket.close",
        "code": 1000,
        "reason": "wse.protocol-error",
    }
    await running
    assert heard == [1, 2, 3, "?"]


@real_time
async def test_a_server_that_fails_below_us_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server()
    peer = Peer()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send" and "news" in message["text"]:
            raise RuntimeError(SECRET)
        await peer.sent.put(message)

    application: Any = server.asgi()
    running = asyncio.create_task(application(peer.scope, peer.coming.get, send))
    await peer.accepted()
    server.send("alice", "news")
    peer.coming.put_nowait({"type": "websocket.disconnect", "code": 1006, "reason": ""})
    await running
    assert server.stats().closed == {"1006": 1}
    assert SECRET not in caplog.text


@real_time
async def test_who_is_cancelled_says_goodbye() -> None:
    server = make_server()
    peer = Peer()
    running = peer.run(server.asgi())
    await peer.accepted()
    running.cancel()
    assert (await peer.sent.get())["code"] == 1012
    with pytest.raises(asyncio.CancelledError):
        await running
    assert server.stats().closed == {"wse.server-closing": 1}


# -- refused, and plain HTTP -----------------------------------------------------------------------


@real_time
async def test_a_refusal_is_an_http_answer_where_the_server_can() -> None:
    application = make_server().asgi()
    evil = [(b"host", b"h"), (b"origin", b"https://evil.example")]
    peer = Peer(headers=evil, extensions={"websocket.http.response": {}})
    await peer.run(application)
    start, body = peer.sent.get_nowait(), peer.sent.get_nowait()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)
    assert body == {
        "type": "websocket.http.response.body",
        "body": b"This origin may not connect.\n",
    }
    peer = Peer(headers=evil)
    await peer.run(application)
    assert peer.sent.get_nowait() == {"type": "websocket.close"}


@pytest.mark.parametrize("name", ASGI_SERVERS)
@real_time
async def test_refusals_and_plain_requests_on_every_web_server(name: str) -> None:
    server = make_server(limits=Limits(max_strangers=1))
    async with WEB_SERVERS[name](server.acceptor) as port:
        status, text = await get_page(port, "/ws")
        assert (status, text.strip()) == (
            426,
            "This is a WebSocket server: connect with a WebSocket client.",
        )
        url = f"ws://127.0.0.1:{port}/ws"
        with pytest.raises(ConnectionFailed) as caught:
            await WseClient(url, headers={"Origin": "https://evil.example"}).connect("bob")
        assert caught.value.details == {"status": 403}
        with server.acceptor.shut(), pytest.raises(ConnectionFailed) as caught:
            await WseClient(url).connect("bob")
        assert caught.value.details == {"status": 503}
        assert caught.value.retry_after == 1
        await server.close()


@pytest.mark.parametrize(
    ("name", "options", "warnings"),
    [
        ("uvicorn", {}, 0),
        ("uvicorn", {"ws_ping_interval": None}, 1),
        ("hypercorn", {"websocket_ping_interval": 20}, 0),
        ("hypercorn", {}, 1),
        ("granian", {}, 1),
    ],
)
@pytest.mark.parametrize("at_start", [True, False])
@real_time
async def test_a_web_server_that_pings_nobody_is_warned_of_once(
    name: str,
    options: dict[str, Any],
    warnings: int,
    at_start: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_of_pings.cache_clear()
    server = make_server()
    app = Starlette(
        routes=[WebSocketRoute("/ws", server.asgi())],
        lifespan=server.lifespan if at_start else None,
    )
    async with ASGI_SERVERS[name](app, **options) as port:
        assert caplog.text.count("pings nobody") == (warnings if at_start else 0)
        for cid in ("alice", "bob"):
            async with talking(port, "/ws", cid):
                pass
        assert caplog.text.count("pings nobody") == warnings


# -- within frameworks -----------------------------------------------------------------------------


@asynccontextmanager
async def talking(port: int, path: str, cid: str) -> AsyncIterator[WseClient]:
    async with WseClient(f"ws://127.0.0.1:{port}{path}") as client:
        await client.connect(cid)
        yield client


@real_time
async def test_several_servers_on_one_web_server_each_at_its_path() -> None:
    chat, games = make_server(), make_server()
    app = Starlette(
        routes=[
            WebSocketRoute("/ws", chat.asgi()),
            WebSocketRoute("/games/{number:int}/ws", games.asgi()),
            Route("/ws", chat.asgi()),
            Route("/", lambda _: PlainTextResponse("the page")),
        ]
    )
    async with (
        serving(app) as port,
        talking(port, "/ws", "alice"),
        talking(port, "/games/7/ws", "bob"),
    ):
        assert (list(chat.clients), list(games.clients)) == (["alice"], ["bob"])
        (conn,) = games.clients["bob"].conns.values()
        assert conn.context["path_params"] == {"number": 7}
        assert await get_page(port, "/") == (200, "the page")
        assert (await get_page(port, "/ws"))[0] == 426
        with pytest.raises(ConnectionFailed) as caught:
            await WseClient(f"ws://127.0.0.1:{port}/nowhere").connect("carol")
        assert caught.value.details == {"status": 403}


@real_time
async def test_a_server_at_two_paths_has_the_users_of_both() -> None:
    server = make_server(conn_per_user=2)
    app = Starlette(routes=[WebSocketRoute(path, server.asgi()) for path in ("/ws", "/old/ws")])
    async with (
        serving(app) as port,
        talking(port, "/ws", "alice"),
        talking(port, "/old/ws", "alice"),
        talking(port, "/old/ws", "bob"),
    ):
        assert {cid: len(user.conns) for cid, user in server.clients.items()} == {
            "alice": 2,
            "bob": 1,
        }


@real_time
async def test_a_mount_answers_below_its_path() -> None:
    server = make_server()
    app = Starlette(routes=[Mount("/live", server.asgi())])
    async with serving(app) as port, talking(port, "/live/", "alice"):
        assert list(server.clients) == ["alice"]


@real_time
async def test_within_litestar() -> None:
    server = make_server()

    @asgi("/ws", copy_scope=False)
    async def devices(scope: Any, receive: Any, send: Any) -> None:
        await server.asgi()(scope, receive, send)

    @get("/tell", sync_to_thread=True)
    def tell() -> str:
        server.send("alice", "news", 1)
        return "told"

    app = Litestar([devices, tell], lifespan=[server.lifespan], logging_config=None)
    async with serving(app) as port, talking(port, "/ws", "alice") as client:
        heard = asyncio.Event()
        client.channel.on("news", lambda _: heard.set())
        assert await get_page(port, "/tell") == (200, "told")
        assert (await get_page(port, "/ws"))[0] == 426
        await heard.wait()


@real_time
async def test_within_quart() -> None:
    server = make_server()
    app = Quart(__name__)

    @app.route("/devices")
    async def devices() -> list[str]:
        return list(server.clients)

    devices_here = server.asgi()

    async def route(scope: Any, receive: Any, send: Any) -> None:
        here = scope.get("path") == "/ws"
        await (devices_here if here else app)(scope, receive, send)

    async with serving(route) as port, talking(port, "/ws", "alice"):
        assert await get_page(port, "/devices") == (200, '["alice"]\n')
        assert (await get_page(port, "/ws"))[0] == 426


@real_time
async def test_an_application_of_its_own_lives_and_ends_with_its_web_server() -> None:
    server = make_server()
    ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
    async with serving(server.asgi(drain=0.1)) as port:
        timer = server._loop_lag._timer
        assert timer is not None
        client = WseClient(f"ws://127.0.0.1:{port}/anywhere")
        client.when.closed(lambda code, reason: ended.set_result((int(code), reason)))
        await client.connect("alice")
        await server.close()
        assert await ended == (1012, "wse.server-closing")
    assert timer.cancelled()
