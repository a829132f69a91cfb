"""The commands, run as a shell runs them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from click.testing import CliRunner
from support import real_time
from websockets.asyncio.client import connect as raw_connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

import wse
from wse import Attempt, Decision, Reason, WseClient, WseConnection, WseServer, hmac_challenge
from wse.cli import _listening as listening_on
from wse.cli import main

SOURCE = str(Path(wse.__file__).parent.parent)
PROTOCOL = Subprotocol("wse-default-json")

APPLICATION = """
from wse import WseServer

def identify(attempt):
    return attempt.accept(attempt.identity) if attempt.identity != "nobody" else attempt.refuse()

server = WseServer(identify)

class Rooms:
    class Lobby:
        server = WseServer(lambda attempt: attempt.accept("lobby"))

number = 3

@server.register("double")
def double(conn, n: int):
    return 2 * n
"""


class Program:
    """`python -m wse ...` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdout is not None
        self._stdout = process.stdout

    async def until(self, part: str) -> str:
        """The next line that has this in it."""
        seen = ""
        while line := (await self._stdout.readline()).decode():
            if part in line:
                return line.rstrip("\n")
            seen += line
        _, errors = await self.process.communicate()
        raise AssertionError(f"{part!r} was not printed: {seen}{errors.decode()}")

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def end(self, *, typed: str = "") -> tuple[int | None, str, str]:
        """Type the last lines; status, what it printed still, and its errors."""
        out, errors = await self.process.communicate(typed.encode() if self.process.stdin else None)
        return self.process.returncode, out.decode(), errors.decode()


@asynccontextmanager
async def program(
    *arguments: str,
    cwd: Path | None = None,
    stdin: int = subprocess.PIPE,
    env: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "wse",
        *arguments,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": SOURCE, "PYTHONWARNINGS": "error", **env},
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def connect(
    url: str, *arguments: str, typed: str = "", **env: str
) -> tuple[int | None, str, str]:
    """Run `wse connect` with these lines on its pipe; status, output and errors."""
    async with program("connect", url, *arguments, env=env) as talk:
        return await talk.end(typed=typed)


def invoke(*arguments: str) -> tuple[int, str]:
    """Run a command in this process; status and what it printed."""
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def last_line(output: str) -> str:
    return output.rstrip("\n").rpartition("\n")[2]


def make_server() -> WseServer[Any]:
    server: WseServer[Any] = WseServer(lambda attempt: attempt.accept("someone", {"n": 1}))

    @server.register("add")
    def add(_: WseConnection, numbers: dict[str, int]) -> int:
        return numbers["a"] + numbers["b"]

    @server.channel.on("echo")
    def echo(conn: WseConnection, payload: Any) -> None:
        conn.send("echoed", payload)

    @server.channel.on("ask")
    async def ask(conn: WseConnection, name: str) -> None:
        try:
            conn.send("answered", await conn.call(name, {"v": 1}))
        except wse.CallNotRegistered:
            conn.send("unanswered", name)

    @server.channel.on("go")
    def go(conn: WseConnection, reason: str) -> None:
        conn.drop(reason)

    return server


@asynccontextmanager
async def serving(server: WseServer[Any]) -> AsyncIterator[str]:
    async with server.listen(port=0) as listener:
        yield f"ws://127.0.0.1:{listener.port}"


# -- connect: lines ----------------------------------------------------------------------------


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
async def test_a_terminal_without_unicode_gets_plain_signs() -> None:
    async with serving(make_server()) as url:
        _, out, _ = await connect(
            url,
            "--identity",
            "me",
            typed='call add {"a": 1, "b": 2}\nsend echo "ü"\ncall add {"a": 0, "b": 0}\n',
            PYTHONIOENCODING="ascii",
        )
    assert "<- add = 3\n" in out
    assert '<- echoed "?"\n' in out


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_in_order(number: signal.Signals) -> None:
    @real_time
    async def story() -> tuple[int, str]:
        server = make_server()
        gone: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        server.when.left(lambda _, code, reason: gone.set_result((code, reason)))
        async with serving(server) as url, program("connect", url, "--identity", "me") as talk:
            await talk.until("welcome")
            talk.process.send_signal(number)
            status, _, errors = await talk.end()
            assert (status, errors) == (0, "")
            return await gone

    assert story() == (1000, "wse.by-client")


@real_time
async def test_it_leaves_when_nobody_reads_its_output_any_more() -> None:
    server = make_server()
    gone = asyncio.Event()
    server.when.left(lambda *_: gone.set())
    async with serving(server) as url:
        with subprocess.Popen(  # noqa: S603, ASYNC220 - asyncio's processes cannot close a pipe
            [sys.executable, "-m", "wse", "connect", url, "--identity", "me"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": SOURCE},
        ) as process:
            assert process.stdin
            assert process.stdout
            assert process.stderr
            while b"welcome" not in await asyncio.to_thread(process.stdout.readline):
                pass
            process.stdout.close()
            process.stdin.write(b"send echo 1\n")
            process.stdin.flush()
            await gone.wait()
            assert await asyncio.to_thread(process.wait) == 0
            assert process.stderr.read() == b""


# -- connect: who, and how ---------------------------------------------------------------------


@real_time
async def test_what_the_command_says_reaches_identify() -> None:
    attempts: list[Attempt] = []

    def identify(attempt: Attempt) -> Decision:
        attempts.append(attempt)
        return attempt.accept("me")

    async with serving(WseServer(identify)) as url:
        path = f"{url}/rooms?token=t"
        await connect(path, "--identity", "[1]", "--header", "X-One: 1", "--header", "X-Two:a: b")
        await connect(
            path, "--identity", '{"token": 1}', "--json-identity", "--meta", '{"app": "x"}'
        )
        await connect(path, WSE_IDENTITY="from the environment")
    text, plain, env = attempts
    assert (text.identity, text.meta) == ("[1]", {})
    assert (text.path, text.query) == ("/rooms", {"token": "t"})
    assert (text.headers["x-one"], text.headers["x-two"]) == ("1", "a: b")
    assert (plain.identity, plain.meta) == ({"token": 1}, {"app": "x"})
    assert env.identity == "from the environment"


async def by_key(attempt: Attempt) -> Decision:
    proved = await hmac_challenge(attempt, "the key")
    return attempt.accept("me") if proved else attempt.refuse()


async def by_riddle(attempt: Attempt) -> Decision:
    await attempt.challenge({"a": 1})
    return attempt.accept("me")


@real_time
async def test_the_key_passes_the_challenge() -> None:
    async with serving(WseServer(by_key)) as url:
        status, out, _ = await connect(url, "--identity", "me", "--key", "the key")
        assert (status, "READY" in out) == (0, True)
        status, out, _ = await connect(url, "--identity", "me", WSE_KEY="the key")
        assert (status, "READY" in out) == (0, True)


@pytest.mark.parametrize(
    ("identify", "arguments", "error"),
    [
        (by_key, ["--key", "another"], "the server refused this identity (wse.not-authorized)"),
        (by_key, [], "the server asks a challenge: give your key with --key"),
        (by_riddle, ["--key", "k"], 'this challenge is not one for --key: {"a":1}'),
        (Attempt.refuse, [], "the server refused this identity (wse.not-authorized)"),
    ],
)
def test_who_is_not_let_in_learns_why(
    identify: Callable[[Attempt], Awaitable[Decision] | Decision], arguments: list[str], error: str
) -> None:
    @real_time
    async def story() -> None:
        async with serving(WseServer(identify)) as url:
            status, out, errors = await connect(url, "--identity", "me", *arguments, typed="help\n")
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


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["http://x", "--identity", "me"], "URL: no WebSocket URL: scheme isn't ws or wss"),
        (["ws://x"], "Missing option '--identity'"),
        (["ws://x", "--identity", "{", "--json-identity"], "--identity: no JSON"),
        (["ws://x", "--identity", "me", "--meta", "{"], "'--meta': no JSON"),
        (["ws://x", "--identity", "me", "--meta", "[" * 100_000], "'--meta': no JSON"),
        (["ws://x", "--identity", "me", "--header", "x"], "'--header': no 'Name: value': 'x'"),
        (["ws://x", "--identity", "me", "--header", "a b: c"], "no 'Name: value': 'a b: c'"),
        (["ws://x", "--identity", "me", "--timeout", "0"], "'--timeout'"),
    ],
)
def test_options_that_cannot_be(arguments: list[str], error: str) -> None:
    status, output = invoke("connect", *arguments)
    assert status == 2
    assert error in last_line(output)


# -- connect: the end --------------------------------------------------------------------------


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
            conn.close(Reason.SERVER_CLOSING)

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
    server.when.connected(lambda conn: conn.close(Reason.SERVER_CLOSING))
    async with (
        serving(server) as url,
        program("connect", url, "--identity", "me", "--reconnect") as talk,
    ):
        await talk.until("RE_CONNECTING")
        await talk.until("! the server refused this identity")
        assert await talk.process.wait() == 1


# -- connect: servers of JavaScript ------------------------------------------------------------


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


# -- serve -------------------------------------------------------------------------------------


@pytest.fixture(name="application")
def make_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with modules, which is the current one; what is imported from it is forgotten."""
    (tmp_path / "cliapp.py").write_text(APPLICATION)
    (tmp_path / "cliapp_lost.py").write_text("import cliapp_nowhere\n")
    (tmp_path / "cliapp_broken.py").write_text("\n\nthis is (\n")
    (tmp_path / "cliapp_raising.py").write_text('raise RuntimeError("no\\ndatabase")\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("cliapp")]:
        del sys.modules[name]


async def listening(serving: Program) -> str:
    return (await serving.until("Listening on ")).removeprefix("Listening on ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_a_module_until_a_signal(application: Path, number: signal.Signals) -> None:
    @real_time
    async def story() -> None:
        async with program("serve", "cliapp", "--port", "0", cwd=application) as served:
            url = await listening(served)
            status, out, _ = await connect(url, "--identity", "me", typed="call double 21\n")
            assert (status, "← double = 42\n" in out) == (0, True)
            async with WseClient(url) as client:
                closed = asyncio.get_running_loop().create_future()
                client.when.closed(lambda code, reason: closed.set_result((code, reason)))
                await client.connect("me")
                served.process.send_signal(number)
                assert await closed == (1012, "wse.server-closing")
            assert await served.end() == (0, "", "")

    story()


@real_time
async def test_serve_takes_a_dotted_attribute(application: Path) -> None:
    target = "cliapp:Rooms.Lobby.server"
    async with program("serve", target, "--port", "0", cwd=application) as served:
        url = await listening(served)
        assert re.fullmatch(r"ws://127\.0\.0\.1:\d+", url)
        async with WseClient(url) as client:
            await client.connect("me")


@real_time
async def test_serve_and_connect_over_a_unix_socket(application: Path) -> None:
    path = application / "socket"
    async with program("serve", "cliapp", "--unix", str(path), cwd=application) as served:
        assert await listening(served) == str(path)
        status, out, _ = await connect(
            "ws://localhost", "--identity", "me", "--unix", str(path), typed="call double 4\n"
        )
    assert (status, "← double = 8\n" in out) == (0, True)


@real_time
async def test_serve_and_connect_over_tls(application: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    both = application / "both.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(both))
    root = application / "root.pem"
    authority.cert_pem.write_to_path(str(root))
    async with program(
        *("serve", "cliapp", "--host", "localhost", "--port", "0", "--tls-cert", str(both)),
        cwd=application,
    ) as served:
        url = await listening(served)
        assert url.startswith("wss://localhost:")
        typed = "call double 5\n"
        trusting = await connect(url, "--identity", "me", typed=typed, SSL_CERT_FILE=str(root))
        strict = await connect(url, "--identity", "me")
    assert (trusting[0], "← double = 10\n" in trusting[1]) == (0, True)
    assert (strict[0], strict[2]) == (1, "Error: cannot connect: the certificate is not valid\n")


@pytest.mark.parametrize(
    ("arguments", "extensions"), [([], False), (["--compression"], True)], ids=["plain", "deflate"]
)
def test_serve_compresses_when_asked(
    application: Path, arguments: list[str], extensions: bool
) -> None:
    @real_time
    async def story() -> None:
        async with program("serve", "cliapp", "--port", "0", *arguments, cwd=application) as served:
            url = await listening(served)
            async with raw_connect(url, subprotocols=[PROTOCOL]) as conn:
                assert bool(conn.protocol.extensions) is extensions

    story()


@pytest.mark.parametrize(
    ("arguments", "logged"), [([], True), (["--log-level", "warning"], False)], ids=["info", "less"]
)
def test_serve_logs_at_the_level_asked_for(
    application: Path, arguments: list[str], logged: bool
) -> None:
    @real_time
    async def story() -> None:
        async with program("serve", "cliapp", "--port", "0", *arguments, cwd=application) as served:
            url = await listening(served)
            assert (await connect(url, "--identity", "nobody"))[0] == 1
            served.process.send_signal(signal.SIGTERM)
            _, _, errors = await served.end()
        assert ("INFO wse.server: " in errors) is logged

    story()


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("cliapp_missing", "no module named 'cliapp_missing'"),
        ("cliapp_missing.sub:server", "no module named 'cliapp_missing'"),
        ("cliapp.sub", "no module named 'cliapp.sub'"),
        ("cliapp:nothing", "'cliapp' has no attribute 'nothing'"),
        ("cliapp:Rooms.nothing.server", "'cliapp.Rooms' has no attribute 'nothing'"),
        ("cliapp:number", "'cliapp.number' is no WseServer, its type is int"),
        ("cliapp:Rooms", "'cliapp.Rooms' is no WseServer, its type is type"),
        (
            "cliapp_lost",
            (
                "importing 'cliapp_lost' failed: ModuleNotFoundError: "
                "No module named 'cliapp_nowhere' ({folder}/cliapp_lost.py, line 1)"
            ),
        ),
        (
            "cliapp_broken",
            (
                "importing 'cliapp_broken' failed: SyntaxError: "
                "'(' was never closed ({folder}/cliapp_broken.py, line 3)"
            ),
        ),
        (
            "cliapp_raising",
            (
                "importing 'cliapp_raising' failed: RuntimeError: "
                "no database ({folder}/cliapp_raising.py, line 1)"
            ),
        ),
    ],
)
def test_serve_says_what_is_wrong_with_its_target(
    application: Path, target: str, error: str
) -> None:
    status, output = invoke("serve", target, "--port", "0")
    assert output == f"Error: {error.format(folder=application)}\n"
    assert status == 1


@pytest.mark.parametrize("target", ["", ":server", ".cliapp"])
@pytest.mark.usefixtures("application")
def test_serve_wants_a_module(target: str) -> None:
    status, output = invoke("serve", target)
    assert last_line(output) == "Error: name the module as Python does: package.module:server"
    assert status == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--tls-key", "key.pem"], "--tls-key wants --tls-cert"),
        (["--unix", "socket", "--port", "1"], "--unix stands instead of --host and --port"),
        (["--unix", "socket", "--host", "::1"], "--unix stands instead of --host and --port"),
        (["--port", "65536"], "65536 is not in the range"),
    ],
)
@pytest.mark.usefixtures("application")
def test_serve_refuses_options_that_cannot_be(arguments: list[str], error: str) -> None:
    status, output = invoke("serve", "cliapp", *arguments)
    assert error in last_line(output)
    assert status == 2


@pytest.mark.parametrize(
    ("certificate", "error"),
    [
        (
            "missing.pem",
            "cannot read the certificate 'missing.pem' or its key: No such file or directory",
        ),
        (
            "cliapp.py",
            (
                "cannot use the certificate 'cliapp.py': "
                "it is no PEM file with a certificate and its key"
            ),
        ),
    ],
)
@pytest.mark.usefixtures("application")
def test_serve_refuses_a_certificate_that_is_none(certificate: str, error: str) -> None:
    status, output = invoke("serve", "cliapp", "--tls-cert", certificate)
    assert output == f"Error: {error}\n"
    assert status == 1


@pytest.mark.usefixtures("application")
def test_serve_says_that_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output = invoke("serve", "cliapp", "--port", str(port))
    assert output == f"Error: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert status == 1


@pytest.mark.parametrize(
    ("host", "secure", "warned"),
    [
        ("0.0.0.0", False, True),  # noqa: S104 - nothing listens there, see Local
        ("::", False, True),
        ("example.org", False, True),
        ("0.0.0.0", True, False),  # noqa: S104
        ("127.0.0.1", False, False),
        ("::1", False, False),
        ("localhost", False, False),
    ],
)
def test_serve_warns_of_listening_to_others_without_tls(
    host: str, secure: bool, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Local(WseServer[Any]):
        """Listens on the loopback, wherever it is told to."""

        def listen(self, *_: Any, **__: Any) -> Any:
            return super().listen(port=0)

    where = {
        "host": host,
        "port": 0,
        "unix": None,
        "ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if secure else None,
    }

    @real_time
    async def story() -> None:
        async with listening_on(Local(Attempt.refuse), where):
            pass

    story()
    assert ("without TLS" in caplog.text) is warned


def test_help_names_the_commands() -> None:
    status, output = invoke("--help")
    assert status == 0
    for command in ("demo", "serve", "connect"):
        assert f"\n  {command} " in output
