"""`wse serve` in a process of its own: health, figures, and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from programs import Program, program
from prometheus_client.parser import text_string_to_metric_families
from support import real_time

from wse import CallDisconnected, ConnectError, WseClient, WseServer
from wse.cli import serving
from wse.transports import tcp

APPLICATION = """
import asyncio
from wse import WseServer

server = WseServer(lambda attempt: attempt.accept(attempt.identity), conn_per_user=10)
gate = asyncio.Event()

@server.register("wait")
async def wait(conn, payload):
    conn.send("waiting")
    await gate.wait()
    return "done"

@server.channel.on("go on")
def go_on(conn, payload):
    gate.set()
"""

CLOSING = (1012, "wse.server-closing")


@asynccontextmanager
async def served(directory: Path, *options: str) -> AsyncIterator[tuple[Program, str]]:
    """A server at a free port, and its address without the scheme."""
    (directory / "live.py").write_text(APPLICATION, encoding="utf-8")
    async with program("serve", "live", "--port", "0", *options, cwd=directory) as running:
        line = await running.until("Listening on")
        yield running, line.rpartition("//")[2]


async def get(url: str) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urlopen(url) as answer:  # noqa: S310 - of our own server
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def nobody_listens(address: str) -> None:
    """Wait until the server takes no more connections."""
    host, _, port = address.partition(":")
    with suppress(ConnectionError):
        while True:
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()


class Guest:
    """A device, and how it was sent away."""

    def __init__(self, address: str) -> None:
        self.client = WseClient(f"ws://{address}/")
        self.end: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.waiting = asyncio.Event()
        self.client.when.closed(lambda code, reason: self.end.set_result((code, reason)))
        self.client.channel.on("waiting", lambda _: self.waiting.set())

    async def call(self) -> asyncio.Task[Any]:
        """A call that is under way at the server."""
        calling = asyncio.create_task(self.client.call("wait"))
        await self.waiting.wait()
        return calling


@asynccontextmanager
async def guests(address: str, count: int) -> AsyncIterator[list[Guest]]:
    here = [Guest(address) for _ in range(count)]
    try:
        for guest in here:
            await guest.client.connect("alice")
        yield here
    finally:
        for guest in here:
            await guest.client.close()


# -- health and figures ----------------------------------------------------------------------------


@real_time
async def test_health_is_told_where_devices_come_in(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, address):
        assert await get(f"http://{address}/healthz") == (200, "ok\n")
        assert (await get(f"http://{address}/metrics"))[0] == 426


@real_time
async def test_while_developing_a_page_of_another_port_may_connect(tmp_path: Path) -> None:
    headers = {"Origin": "http://localhost:5173"}
    async with served(tmp_path) as (_, address):
        with pytest.raises(ConnectError) as refused:
            await WseClient(f"ws://{address}/", headers=headers).connect("alice")
        assert refused.value.details["status"] == 403
    async with (
        served(tmp_path, "--dev") as (_, address),
        WseClient(f"ws://{address}/", headers=headers) as client,
    ):
        await client.connect("alice")


@real_time
async def test_figures_are_told_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "live.py").write_text(APPLICATION, encoding="utf-8")
    options = ("--port", "0", "--metrics-port", "0")
    async with program("serve", "live", *options, cwd=tmp_path) as running:
        metrics = (await running.until("Metrics on")).removeprefix("Metrics on ")
        address = (await running.until("Listening on")).rpartition("//")[2]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", metrics)
        assert not metrics.startswith(f"http://{address}/")
        async with guests(address, 2):
            status, page = await get(metrics)
            assert status == 200
            values = {
                sample.name: sample.value
                for family in text_string_to_metric_families(page)
                for sample in family.samples
            }
            assert (values["wse_devices"], values["wse_users"]) == (2, 1)
        assert (await get(metrics.replace("/metrics", "/healthz")))[0] == 200
        assert (await get(metrics.replace("/metrics", "/other")))[0] == 426
        with pytest.raises(Exception, match="HTTP status 404"):
            await WseClient(metrics.replace("http", "ws")).connect("alice")
        running.process.send_signal(signal.SIGTERM)
        assert (await running.end())[0] == 0


def test_a_server_that_closes_is_not_well() -> None:
    server: WseServer[Any] = WseServer(lambda attempt: attempt.refuse())
    assert serving._health(server).status == 200
    with server.acceptor.shut():
        assert serving._health(server).status == 503
    assert serving._health(server).status == 200


@real_time
async def test_a_port_for_figures_that_is_taken_is_named(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, address):
        port = address.rpartition(":")[2]
        options = ("--port", "0", "--metrics-port", port)
        async with program("serve", "live", *options, cwd=tmp_path) as other:
            status, _, errors = await other.end()
        assert status == 1
        assert f"cannot listen on 127.0.0.1:{port}" in errors


# -- the end ---------------------------------------------------------------------------------------


@real_time
async def test_sigterm_lets_calls_end(tmp_path: Path) -> None:
    async with served(tmp_path, "--drain", "20") as (running, address), guests(address, 2) as here:
        caller, other = here
        calling = await caller.call()
        running.process.send_signal(signal.SIGTERM)
        await nobody_listens(address)
        # The second goes after half of the time: its message ends the call of the first.
        other.client.send("go on")
        assert await calling == "done"
        assert await caller.end == CLOSING
        running.process.send_signal(signal.SIGTERM)
        assert await other.end == CLOSING
        status, _, errors = await running.end()
        assert (status, "Traceback" in errors) == (0, False)


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
@real_time
async def test_sigint_and_a_second_signal_do_not_wait(
    numbers: list[signal.Signals], tmp_path: Path
) -> None:
    async with served(tmp_path, "--drain", "600") as (running, address):
        async with guests(address, 3) as here:
            calling = await here[0].call()
            for number in numbers:
                running.process.send_signal(number)
                await nobody_listens(address)
            with pytest.raises(CallDisconnected):
                await calling
            assert [await guest.end for guest in here] == [CLOSING] * 3
        status, _, errors = await running.end()
        assert (status, "Traceback" in errors) == (0, False)


# -- in the open -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "options", "warned"),
    [
        ("0.0.0.0", {}, True),  # noqa: S104 - nothing listens there, see local
        ("::", {}, True),
        ("example.org", {}, True),
        ("0.0.0.0", {"ssl": object()}, False),  # noqa: S104
        ("0.0.0.0", {"unix": "path"}, False),  # noqa: S104
        ("127.0.0.1", {}, False),
        ("::1", {}, False),
        ("localhost", {}, False),
    ],
)
def test_a_server_warns_of_listening_to_others_without_tls(
    host: str,
    options: dict[str, Any],
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    listen = tcp.listen

    async def local(acceptor: Any, *_: Any, **__: Any) -> tcp.Listener:
        return await listen(acceptor, "127.0.0.1", 0)

    monkeypatch.setattr(tcp, "listen", local)

    @real_time
    async def story() -> None:
        server: WseServer[Any] = WseServer(lambda attempt: attempt.refuse())
        async with server.listen(host, **options):
            pass

    story()
    assert ("without TLS" in caplog.text) is warned
