"""Text for a terminal."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import subprocess
import sys
from typing import Any

import pytest
from programs import connect, environment, make_server, serving
from support import real_time

from wse.cli.terminal import os_error, parsed, printable, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, ü, 日本 and ✓", "plain, ü, 日本 and ✓"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("\n\u202e\u2028", r"\n\u202e\u2028"),
    ],
)
def test_what_would_steer_a_terminal_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_a_payload_is_shown_as_json() -> None:
    assert shown({"a": [1, None, "ü\x9b"]}) == r'{"a":[1,null,"ü\x9b"]}'


@pytest.mark.parametrize(("text", "value"), [("null", None), ('{"a": [1.5]}', {"a": [1.5]})])
def test_a_payload_is_typed_as_json(text: str, value: Any) -> None:
    assert parsed(text) == value


@pytest.mark.parametrize("text", ["hello", "", "{", "1 2", "[" * 100_000])
def test_what_is_no_json_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="text wants quotes") as raised:
        parsed(text)
    assert str(raised.value).endswith(f": {text}")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EADDRINUSE, "error while attempting to bind"), "Address already in use"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] again"),
            os.strerror(111),
        ),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (OSError("the line is cut"), "the line is cut"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
    ids=["wrapped", "several", "resolver", "text", "bare"],
)
def test_what_the_system_says_is_one_sentence(error: OSError, sentence: str) -> None:
    assert os_error(error) == sentence


def test_what_tls_says_is_its_reason() -> None:
    plain = ssl.MemoryBIO()
    plain.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    tls = ssl.create_default_context().wrap_bio(plain, ssl.MemoryBIO(), server_hostname="x")
    with pytest.raises(ssl.SSLError) as raised:
        tls.do_handshake()
    assert os_error(raised.value) == "WRONG_VERSION_NUMBER"


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
            env=environment(),
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
