"""The commands, run as a shell runs them."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import Program, connect, invoke, last_line, make_server, program, serving
from support import TOKEN, real_time
from websockets.asyncio.client import connect as raw_connect
from websockets.typing import Subprotocol

from wse import Attempt, Decision, WseClient, WseServer, hmac_challenge

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


# -- connect -----------------------------------------------------------------------------------


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
    ("identify", "error"),
    [
        (by_key, "the server refused this identity (wse.not-authorized)"),
        (by_riddle, 'this challenge is not one for --key: {"a":1}'),
    ],
)
def test_the_key_may_be_the_wrong_one(identify: Any, error: str) -> None:
    @real_time
    async def story() -> None:
        async with serving(WseServer(identify)) as url:
            status, _, errors = await connect(url, "--identity", "me", "--key", "another")
        assert (status, errors) == (1, f"Error: {error}\n")

    story()


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


def test_an_identity_that_is_no_json_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSE_IDENTITY", TOKEN)
    status, output = invoke("connect", "ws://x", "--json-identity")
    assert (status, last_line(output)) == (2, "Error: Invalid value for --identity: no JSON")


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
        served.process.terminate()
        assert await served.end() == (0, "", "")


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
        served.process.terminate()
        assert await served.end() == (0, "", "")
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


def test_help_names_the_commands() -> None:
    status, output = invoke("--help")
    assert status == 0
    for command in ("demo", "serve", "connect"):
        assert f"\n  {command} " in output
