"""`wse connect`, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import StringIO
from typing import Any

import pytest
from programs import connect, make_server, program, serving
from rich.console import Console
from support import real_time
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from wse import Attempt, Decision, Reason, WseConnection, WseServer
from wse.cli import talk
from wse.cli.talk import Lines, Talk

PROTOCOL = Subprotocol("wse-default-json")


# -- lines -------------------------------------------------------------------------------------


@real_time
async def test_a_piped_call_prints_its_result_and_the_program_ends() -> None:
    async with serving(make_server()) as url:
        status, out, errors = await connect(
            url, "--identity", "me", typed='call add {"a": 1, "b": 2}\n'
        )
    assert out.splitlines() == [
        "· CONNECTING",
        "· READY",
        '· welcome {"n":1}',
        "← add = 3",
        "· closed 1000 wse.by-client",
        "· OFFLINE",
    ]
    assert (status, errors) == (0, "")


@real_time
async def test_piped_calls_are_answered_in_the_order_of_their_lines() -> None:
    server = make_server()
    gate = asyncio.Event()

    @server.register("slow")
    async def slow(_: WseConnection, __: Any) -> str:
        await gate.wait()
        return "slow"

    @server.register("open")
    def open_gate(_: WseConnection, __: Any) -> None:
        gate.set()

    async with serving(server) as url, program("connect", url, "--identity", "me") as talk:
        talk.type("call slow")
        talk.type("call open")
        await talk.until("READY")
        gate.set()
        _, out, _ = await talk.end()
    assert [line for line in out.splitlines() if " = " in line] == [
        '← slow = "slow"',
        "← open = null",
    ]


@real_time
async def test_lines_that_fail_say_why_and_the_rest_is_obeyed() -> None:
    typed = "\n".join(  # noqa: FLY002 - one line each
        [
            "dance",
            "send",
            "call add {a: 1}",
            "send echo hello",
            "send ~wse:hi",
            "call ~wse:hi",
            "call nope",
            "call add {}",
            "answer",
            "",
            '  call   add   {"a": 2,   "b": 3}  ',
        ]
    )
    async with serving(make_server()) as url:
        status, out, _ = await connect(url, "--identity", "me", typed=typed)
    failed, rest = out.splitlines()[3:12], out.splitlines()[12:]
    assert failed[:4] == [
        "! no such command: dance (try help)",
        "! send what? (try help)",
        '! no JSON (text wants quotes: "..."): {a: 1}',
        '! no JSON (text wants quotes: "..."): hello',
    ]
    assert re.fullmatch(r"! .* reserved", failed[4])
    assert re.fullmatch(r"! ~wse:hi: .* reserved", failed[5])
    assert failed[6] == "! nope: wse.server.rp.not-registered"
    assert re.fullmatch(r'! add: wse\.server\.rp\.failed \{"id":"[0-9a-f]+"\}', failed[7])
    assert failed[8] == "! answer what? (try help)"
    assert rest[0] == "← add = 5"
    assert status == 1


@real_time
async def test_help_lists_the_commands_and_quit_leaves() -> None:
    async with serving(make_server()) as url:
        status, out, _ = await connect(url, "--identity", "me", typed="help\nquit\ncall add\n")
    for command in ("send TYPE", "call NAME", "answer NAME", "help", "quit"):
        assert f"\n  {command}" in out
    assert status == 0
    assert "add" not in out


@real_time
async def test_messages_and_calls_of_the_server_are_shown_and_answered() -> None:
    async with serving(make_server()) as url, program("connect", url, "--identity", "me") as talk:
        talk.type('send echo {"text": "hi"}')
        assert await talk.until("echoed") == '← echoed {"text":"hi"}'
        talk.type('send ask "ping"')
        assert await talk.until("call") == '← call ping {"v":1}'
        assert await talk.until("answered") == '← unanswered "ping"'
        for answer in ("pong", "pang"):
            talk.type(f'answer ping "{answer}"')
            talk.type('send ask "ping"')
            assert await talk.until("answered") == f'← answered "{answer}"'
        assert (await talk.end())[0] == 0


@real_time
async def test_what_would_steer_a_terminal_is_shown_escaped() -> None:
    async with serving(make_server()) as url, program("connect", url, "--identity", "me") as talk:
        talk.type('send echo "\\u001b[2J\\u009b31m\\u202e"')
        assert await talk.until("echoed") == r'← echoed "\u001b[2J\x9b31m\u202e"'
        assert (await talk.end())[0] == 0


@real_time
async def test_a_person_types_while_a_call_waits() -> None:
    server = make_server()

    @server.register("never")
    async def never(_: WseConnection, __: Any) -> None:
        await asyncio.Event().wait()

    terminal, stdin = pty.openpty()
    async with (
        serving(server) as url,
        program("connect", url, "--identity", "me", stdin=stdin) as talk,
    ):
        await talk.until("type help")
        os.write(terminal, b'call never\ncall nope\ncall add {"a": 1, "b": 1}\n')
        assert await talk.until("nope") == "! nope: wse.server.rp.not-registered"
        assert await talk.until("add") == "← add = 2"
        os.write(terminal, b"quit\n")
        status, _, errors = await talk.end()
    os.close(terminal)
    os.close(stdin)
    assert (status, errors) == (0, "")


@contextmanager
def typed(text: bytes) -> Iterator[int]:
    """The descriptor of a pipe that has this in it, and ends there."""
    source, sink = os.pipe()
    os.write(sink, text)
    os.close(sink)
    try:
        yield source
    finally:
        os.close(source)


@real_time
async def test_a_line_needs_no_end_and_no_right_encoding() -> None:
    with typed(b"one\n\n\xc3\xbc \xff\nlast") as fd:
        lines = Lines(fd)
        seen = [await lines.next() for _ in range(5)]
    assert seen == ["one", "", "ü \ufffd", "last", None]


@real_time
async def test_lines_are_read_ahead_within_bounds() -> None:
    with typed(b"".join(b"%d\n" % number for number in range(5000))) as fd:
        lines = Lines(fd)
        ahead = 0
        for number in range(5000):
            assert await lines.next() == str(number)
            ahead = max(ahead, lines._lines.qsize())
        assert await lines.next() is None
    assert 0 < ahead <= 256


@real_time
async def test_lines_end_before_their_file_does() -> None:
    source, sink = os.pipe()
    lines = Lines(source)
    waiting = asyncio.create_task(lines.next())
    await asyncio.sleep(0)
    lines.end()
    assert await waiting is None
    os.close(sink)
    assert await lines.next() is None
    os.close(source)


# -- no connection -----------------------------------------------------------------------------


async def by_riddle(attempt: Attempt) -> Decision:
    await attempt.challenge({"a": 1})
    return attempt.accept("me")


@pytest.mark.parametrize(
    ("identify", "error"),
    [
        (Attempt.refuse, "the server refused this identity (wse.not-authorized)"),
        (by_riddle, "the server asks a challenge: give your key with --key"),
    ],
)
def test_who_is_not_let_in_learns_why(
    identify: Callable[[Attempt], Awaitable[Decision] | Decision], error: str
) -> None:
    @real_time
    async def story() -> None:
        async with serving(WseServer(identify)) as url:
            status, out, errors = await connect(url, "--identity", "me", typed="help\n")
        assert (status, errors) == (1, f"Error: {error}\n")
        assert "READY" not in out

    story()


@real_time
async def test_without_a_server_it_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for host in ("127.0.0.1", "localhost"):
        status, _, errors = await connect(f"ws://{host}:{port}", "--identity", "me")
        assert (status, errors) == (1, "Error: cannot connect: Connection refused\n")


@real_time
async def test_a_name_that_nobody_has() -> None:
    status, _, errors = await connect("ws://nobody.invalid", "--identity", "me")
    assert status == 1
    assert re.fullmatch(r"Error: cannot connect: [^\n]+\n", errors)


@real_time
async def test_a_server_that_says_nothing() -> None:
    async def silent(conn: ServerConnection) -> None:
        await conn.wait_closed()

    async with serve(silent, "127.0.0.1", 0, subprotocols=[PROTOCOL]) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        status, _, errors = await connect(url, "--identity", "me", "--timeout", "0.2")
    assert (status, errors) == (1, "Error: cannot connect: no welcome in time\n")


@real_time
async def test_a_server_that_closes_before_its_welcome() -> None:
    async def closing(conn: ServerConnection) -> None:
        await conn.close(4001, "not today")

    async with serve(closing, "127.0.0.1", 0, subprotocols=[PROTOCOL]) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        status, _, errors = await connect(url, "--identity", "me")
    assert (status, errors) == (1, "Error: closed before the welcome: 4001 not today\n")


@real_time
async def test_a_server_without_tls_behind_a_tls_url() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        status, _, errors = await connect(f"wss://127.0.0.1:{port}", "--identity", "me")
    assert status == 1
    assert re.fullmatch(r"Error: cannot connect: [^\n]+\n", errors)


@real_time
async def test_a_server_that_is_none_of_websocket() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        status, _, errors = await connect(f"ws://127.0.0.1:{port}", "--identity", "me")
    assert errors == "Error: cannot connect: the server answered with HTTP status 404\n"
    assert status == 1


# -- the end -----------------------------------------------------------------------------------


@real_time
async def test_being_sent_away_ends_it_with_code_and_reason() -> None:
    async with serving(make_server()) as url, program("connect", url, "--identity", "me") as talk:
        talk.type('send go "out\\u0007"')
        assert await talk.until("closed") == r"· closed 1000 out\x07"
        assert await talk.process.wait() == 1


@real_time
async def test_a_call_under_way_fails_with_the_connection() -> None:
    server = make_server()

    @server.register("leave")
    async def leave(conn: WseConnection, _: Any) -> None:
        conn.drop()
        await asyncio.Event().wait()

    async with serving(server) as url:
        status, out, _ = await connect(url, "--identity", "me", typed="call leave\nsend echo 1\n")
    assert "! leave: wse.client.rp.disconnect\n" in out
    assert "not-ready" not in out
    assert status == 1


@real_time
async def test_with_reconnect_it_comes_back() -> None:
    server = make_server()
    torn: list[WseConnection] = []

    @server.when.connected
    def connected(conn: WseConnection) -> None:
        if not torn:
            torn.append(conn)
            conn.drop(Reason.SERVER_CLOSING)

    async with (
        serving(server) as url,
        program("connect", url, "--identity", "me", "--reconnect") as talk,
    ):
        assert await talk.until("closed") == "· closed 1012 wse.server-closing"
        await talk.until("RE_CONNECTING")
        await talk.until("READY")
        status, out, _ = await talk.end(typed='call add {"a": 4, "b": 4}\n')
    assert "← add = 8\n" in out
    assert status == 0


@real_time
async def test_with_reconnect_a_refusal_is_the_end() -> None:
    known = ["me"]

    def identify(attempt: Attempt) -> Decision:
        return attempt.accept(known.pop() if known else None)

    server: WseServer[Any] = WseServer(identify)
    server.when.connected(lambda conn: conn.drop(Reason.SERVER_CLOSING))
    async with (
        serving(server) as url,
        program("connect", url, "--identity", "me", "--reconnect") as talk,
    ):
        await talk.until("RE_CONNECTING")
        await talk.until("! the server refused this identity")
        assert await talk.process.wait() == 1


def test_a_signal_while_it_leaves_tears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    @real_time
    async def story() -> None:
        async with serving(make_server()) as url:
            leaving = Talk(Console(file=StringIO()), url, interactive=False)
            close = leaving.client.close
            closed = asyncio.Event()

            async def signalled_close() -> None:
                if not closed.is_set():
                    closed.set()
                    running.cancel()
                await close()

            monkeypatch.setattr(leaving.client, "close", signalled_close)
            with typed(b"") as fd:
                monkeypatch.setattr(talk, "Lines", lambda _: Lines(fd))
                running = asyncio.create_task(leaving.run("me", {}))
                with pytest.raises(asyncio.CancelledError):
                    await running
            assert closed.is_set()
            assert not leaving.client._leaving

    story()


# -- servers of JavaScript ---------------------------------------------------------------------


@asynccontextmanager
async def javascript(
    answers: Callable[[str, Any, str], list[list[Any]]],
) -> AsyncIterator[tuple[str, list[list[Any]]]]:
    """A raw server that welcomes, and what it heard; `answers` gives frames for each call."""
    heard: list[list[Any]] = []

    async def talk(conn: ServerConnection) -> None:
        async for data in conn:
            frame = json.loads(data)
            heard.append(frame)
            match frame:
                case ["~wse:hi", *_]:
                    await conn.send(json.dumps(["early", 1, None]))
                    await conn.send(json.dumps(["~wse:welcome", {"hey": 1}, None]))
                case [str(name), payload, str(stamp)] if not name.startswith("~wse:"):
                    for answer in answers(name, payload, stamp):
                        await conn.send(json.dumps(answer, separators=(",", ":")))

    async with serve(talk, "127.0.0.1", 0, subprotocols=[PROTOCOL]) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", heard


@real_time
async def test_a_javascript_server_of_version_4_7() -> None:
    def answers(name: str, payload: Any, stamp: str) -> list[list[Any]]:
        match name:
            case "add":
                return [[stamp, payload["a"] + payload["b"], {"success": True}]]
            case "fail":
                outcome = {"type": "wse-error", "code": "my-code", "details": {"fun": 1}}
                return [[stamp, None, outcome]]
        return [[stamp, None, {"code": "wse.server.rp.not-registered"}]]

    async with javascript(answers) as (url, heard):
        typed = 'send hello {"m": 1}\ncall add {"a": 5, "b": 3}\ncall fail\ncall nope\n'
        status, out, _ = await connect(url, "--identity", "s", "--meta", '{"a": 1}', typed=typed)
    assert out.splitlines()[1:-2] == [
        "· READY",
        '· welcome {"hey":1}',
        "← early 1",
        "← add = 8",
        '! fail: my-code {"fun":1}',
        "! nope: wse.server.rp.not-registered",
    ]
    assert status == 1
    hi, hello, *calls = heard
    assert hi == ["~wse:hi", {"identity": "s", "meta": {"a": 1}}, None]
    assert hello == ["hello", {"m": 1}, None]
    for name, _, stamp in calls:
        assert re.fullmatch(rf"~wse:call:{name}:[a-zA-Z0-9]+", stamp)


@real_time
async def test_a_javascript_server_of_version_4_8() -> None:
    def answers(name: str, payload: Any, stamp: str) -> list[list[Any]]:
        match name:
            case "add":
                return [["~wse:response", payload["a"] + payload["b"], stamp]]
            case "fail":
                error = {"code": "my-code", "details": {"fun": 1}}
                return [["~wse:response-err", error, stamp]]
        return [["ping", {"v": 1}, "nOiM3gX9Bx"], ["~wse:response", None, stamp]]

    async with javascript(answers) as (url, heard):
        typed = 'call add {"a": 5, "b": 3}\ncall fail\ncall back\nanswer ping "pong"\ncall back\n'
        status, out, _ = await connect(url, "--identity", "s", typed=typed)
    assert out.splitlines()[4:-2] == [
        "← add = 8",
        '! fail: my-code {"fun":1}',
        '← call ping {"v":1}',
        "← back = null",
        '← call ping {"v":1}',
        "← back = null",
    ]
    assert status == 1
    replies = [frame for frame in heard if frame[0].startswith("~wse:response")]
    assert replies == [
        ["~wse:response-err", {"code": "wse.server.rp.not-registered"}, "nOiM3gX9Bx"],
        ["~wse:response", "pong", "nOiM3gX9Bx"],
    ]
