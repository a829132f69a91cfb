"""What watches the whole run hears what it should."""

from __future__ import annotations

import ast
import asyncio
import builtins
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import wiretap
from carriers import Acceptor, listening, on_loop, raw_client, raw_server, request, tls_contexts
from programs import program
from support import SECRET, TOKEN, boom, real_time

import wse
from wse import (
    ConnectionFailed,
    Limits,
    WseClient,
    WseConnection,
    WseError,
    WseJSON,
    WseServer,
    testing,
)
from wse.transports.base import Refusal


class Chatty(WseJSON):
    """A protocol that tells callers too much."""

    def failure(self, stamp: str, code: str, details: Any = None) -> bytes:
        return super().failure(stamp, code, traceback.format_exc())


@asynccontextmanager
async def met(kind: str) -> AsyncIterator[tuple[WseConnection, WseClient]]:
    """A device over this carrier, both ends of it."""
    server: WseServer = WseServer(lambda attempt: attempt.accept("x"), protocols=[Chatty()])
    server.register("fail", boom)
    if kind == "memory":
        async with testing.Network(server) as network:
            client = (await network.connect(protocols=[Chatty()])).client
            client.register("fail", boom)
            yield next(iter(server.clients.conns.values())), client
        return
    serving, trusting = tls_contexts() if kind == "tls" else (None, None)
    compression = kind == "deflate"
    scheme = "wss" if serving else "ws"
    async with (
        server.listen(port=0, ssl=serving, compression=compression) as listener,
        WseClient(
            f"{scheme}://127.0.0.1:{listener.port}",
            protocols=[Chatty()],
            ssl=trusting,
            compression=compression,
        ) as client,
    ):
        client.register("fail", boom)
        await client.connect()
        yield next(iter(server.clients.conns.values())), client


Leak = Callable[[WseConnection, WseClient], Awaitable[Any]]


async def in_a_reply(_: WseConnection, client: WseClient) -> None:
    with suppress(WseError):
        await client.call("fail")


async def in_a_clients_reply(conn: WseConnection, _: WseClient) -> None:
    with suppress(WseError):
        await conn.call("fail")


async def in_a_close(conn: WseConnection, _: WseClient) -> None:
    conn.drop(f"at {Path(wse.__file__).parent}"[:123])


async def in_a_clients_close(_: WseConnection, client: WseClient) -> None:
    await client.close(SECRET)


@pytest.mark.parametrize(
    ("leak", "who", "what"),
    [
        (in_a_reply, "a server", SECRET),
        (in_a_clients_reply, "a client", SECRET),
        (in_a_close, "a server", "at /"),
        (in_a_clients_close, "a client", SECRET),
    ],
)
@pytest.mark.parametrize("kind", ["memory", "tcp", "tls", "deflate", "uvloop"])
def test_a_leak_is_heard(kind: str, leak: Leak, who: str, what: str) -> None:
    async def story() -> None:
        async with met(kind) as (conn, client):
            await leak(conn, client)
            if leak is in_a_close:
                await client.wait_closed()

    with wiretap.overhearing() as leaks:
        on_loop(kind, story())
    assert "test_a_leak_is_heard" in leaks[0]
    assert ("an end in memory" if kind == "memory" else who) in leaks[0]
    assert what in leaks[0]
    assert len(leaks) == 1 + (kind != "memory" and "close" in leak.__name__)  # with its echo


@real_time
async def test_a_leak_in_an_http_answer_is_heard() -> None:
    acceptor = Acceptor(Limits())
    acceptor.refusal = Refusal(status=403, text=SECRET)
    with wiretap.overhearing() as leaks:
        async with (
            listening(acceptor) as listener,
            raw_client(listener.port, upgraded=False) as peer,
        ):
            peer.writer.write(request())
            assert (await peer.head())[0] == 403
    assert len(leaks) == 1
    assert "a server sent" in leaks[0]


@real_time
async def test_a_leak_in_a_clients_request_is_heard() -> None:
    with wiretap.overhearing() as leaks:
        async with raw_server() as (url, came):
            client = WseClient(url, headers={"X-Why": 'File "client.py", line 1'})
            connecting = asyncio.create_task(client.connect())
            await (await came.get()).answer_upgrade()
            await client.close()
            with pytest.raises(ConnectionFailed):
                await connecting
    assert len(leaks) == 1
    assert "a client sent" in leaks[0]


def test_a_leak_of_a_program_is_heard(tmp_path: Path) -> None:
    (tmp_path / "leaky.py").write_text(
        "import wse\n\nserver = wse.WseServer(lambda attempt: attempt.accept('x', wse.__file__))\n"
    )

    @real_time
    async def story() -> None:
        async with program("serve", "leaky", "--port", "0", cwd=tmp_path) as served:
            url = (await served.until("Listening on ")).removeprefix("Listening on ")
            async with WseClient(url) as client:
                assert (await client.connect()).endswith("__init__.py")

    with wiretap.overhearing() as leaks:
        story()
    assert len(leaks) == 1
    assert "test_a_leak_of_a_program_is_heard" in leaks[0]
    assert "a server sent" in leaks[0]


def test_a_private_word_in_a_log_is_heard() -> None:
    logger = logging.getLogger("wse.server")
    with wiretap.overhearing() as leaks:
        logger.info("it is %s", TOKEN)
        logger.error("failed", exc_info=KeyError("alice"))
        with pytest.raises(LookupError) as own:
            raise LookupError(TOKEN + SECRET)
        logger.error("failed", exc_info=own.value)
    assert len(leaks) == 2


# -- and there is no other way --------------------------------------------------------------------

SOURCE = Path(wse.__file__).parent
WAYS_OUT = {
    *("create_connection", "create_unix_connection", "create_server", "create_unix_server"),
    *("open_connection", "open_unix_connection", "start_server", "start_unix_server"),
    *("create_datagram_endpoint", "connect_accepted_socket", "start_tls"),
    *("sock_sendall", "sock_sendto", "sock_sendfile", "sendfile", "sendall", "sendto"),
}


def test_sockets_are_opened_where_the_wiretap_listens_and_nowhere_else() -> None:
    """But for the demo's cable, which passes on what it is given."""
    uses = {
        (path.relative_to(SOURCE).as_posix(), node.func.attr, ast.unparse(node.args[0]))
        for path in SOURCE.rglob("*.py")
        if path.name != "cast.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in WAYS_OUT
    }
    assert uses == {
        ("transports/tcp.py", "create_server", "upgrade"),
        ("transports/tcp.py", "create_unix_server", "upgrade"),
        ("transports/tcp.py", "create_connection", "opening"),
        ("transports/tcp.py", "create_unix_connection", "opening"),
    }


def test_what_tests_raise_as_an_application_would_carries_the_marker() -> None:
    """Otherwise the wiretap listens for nothing."""
    ours = {"AssertionError", "NotImplementedError", *wse.__all__}
    plain = []
    for path in wiretap.TESTS.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Raise) and node.exc is not None:
                raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                name = ast.unparse(raised).rpartition(".")[2]
                made = raised is not node.exc
                is_error = hasattr(builtins, name) or (made and name.lower().endswith("error"))
                if is_error and name not in ours and "SECRET" not in ast.unparse(node):
                    plain.append(f"{path.name}:{node.lineno}")
    assert plain == []
