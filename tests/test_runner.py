"""Running a program's loop, and ending it by a signal."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from programs import environment
from support import SECRET, real_time

from wse import Backoff, WseClient, runner

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

SERVER = """
    import sys
    from wse import WseServer

    server = WseServer(lambda attempt: attempt.accept(attempt.identity))

    @server.when.left
    async def left(client, code, reason):
        print(f"{client.cid} left {code} {reason}")

    server.run(unix=sys.argv[1])
    print("ended in order")
"""

CONTEXT = """
    import sys
    from contextlib import asynccontextmanager
    from wse import WseServer
    from wse.runner import run_until_signal

    server = WseServer(lambda attempt: attempt.accept(attempt.identity))

    @asynccontextmanager
    async def application():
        async with server.listen(unix=sys.argv[1]):
            yield
        print("left the context")

    run_until_signal(application(), entered=lambda: None, hurry=server.close)
    print("ended in order")
"""


@asynccontextmanager
async def program(source: str, *args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(source),
        *args,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (SERVER, "alice left 1012 wse.server-closing\nended in order\n"),
        (CONTEXT, "left the context\nended in order\n"),
    ],
    ids=["server.run", "run_until_signal"],
)
@real_time
async def test_a_signal_ends_a_server_in_order(
    source: str, said: str, number: signal.Signals, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    closed: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    async with program(source, path) as process:
        backoff = Backoff(first=0.01, factor=1)
        async with WseClient("ws://test/", unix=path, reconnect=True, backoff=backoff) as client:
            await client.connect("alice")
            client.reconnect = False
            client.when.closed(lambda code, reason: closed.put_nowait((code, reason)))
            process.send_signal(number)
            assert await closed.get() == (1012, "wse.server-closing")
        out, errors = await process.communicate()
    assert (process.returncode, out.decode(), errors.decode()) == (0, said, "")


def test_run_returns_what_the_program_returns() -> None:
    async def main() -> str:
        await asyncio.sleep(0)
        return "result"

    assert runner.run(main()) == "result"


def test_run_raises_what_the_program_raises() -> None:
    async def main() -> None:
        raise LookupError(f"in the program {SECRET}")

    with pytest.raises(LookupError, match="in the program"):
        runner.run(main())


def test_a_context_that_cannot_be_entered_is_an_error() -> None:
    async def never() -> None:
        raise AssertionError

    class Fails(AbstractAsyncContextManager[None]):
        async def __aenter__(self) -> None:
            raise OSError(f"no such address {SECRET}")

        async def __aexit__(self, *_: object) -> None:
            raise AssertionError

    with pytest.raises(OSError, match="no such address"):
        runner.run_until_signal(Fails(), entered=lambda: None, hurry=never)


def test_uvloop_is_used_where_it_is_installed() -> None:
    async def main() -> str:
        return type(asyncio.get_running_loop()).__module__

    installed = importlib.util.find_spec("uvloop") is not None
    assert runner.run(main()).startswith("uvloop" if installed else "asyncio")


def test_without_uvloop_the_loop_is_asyncios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert runner.loop_factory() is None


def test_with_uvloop_the_loop_is_uvloops(monkeypatch: pytest.MonkeyPatch) -> None:
    class Uvloop:
        new_event_loop: Any = staticmethod(asyncio.new_event_loop)

    monkeypatch.setitem(sys.modules, "uvloop", Uvloop)
    assert runner.loop_factory() is Uvloop.new_event_loop
