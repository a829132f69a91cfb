"""Test an application without ports, threads or sleeps: a server and its devices in one process.

    @testing.virtual_time
    async def test_hello() -> None:
        async with testing.Network(server) as network:
            alice = await network.connect("alice-token")
            alice.send("hello", {"n": 1})
            assert await alice.next("welcome") == {"got": 1}

Connections are in memory; everything above them is what runs in production. Under `virtual_time`
the clock stands still while there is something to do, and jumps to the next timer when there is
not: a day passes in half a millisecond, and a deadlock is an error.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, Self, TypeVar

from .client import WseClient
from .server import WseServer
from .transports.memory import MemoryDialer, MemoryTransport

__all__ = ["Device", "Network", "VirtualClockLoop", "pass_time", "run", "settle", "virtual_time"]

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE = 5.0
"""Real seconds to wait for another thread before calling it a deadlock."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for the next timer, lets the loop's clock jump to it."""

    loop: VirtualClockLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None or self.loop.threads:
            events = super().select(_PATIENCE)
            if not events and timeout is None:
                raise RuntimeError("deadlock: nothing is left that could happen")
            return events
        self.loop.now += timeout
        return []


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when there is nothing else to do."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self.now = 0.0
        """The loop's time, in seconds."""
        self.threads = 0
        """Functions that run in threads at the moment; the clock waits for them."""
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        self.threads += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self.threads -= 1

    def _thread_done(self, _: object) -> None:
        self.threads -= 1


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own with a virtual clock.

    Raises:
        RuntimeError: it waits for something that cannot happen any more.
    """
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an async test a plain one that `run`s; needs no plugin of the test runner."""

    @functools.wraps(test)
    def plain(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(test(*args, **kwargs))

    return plain


async def pass_time(seconds: float) -> None:
    """Turn the clock: all that is due within these seconds happens, in its order.

    Raises:
        RuntimeError: the loop has a real clock.
    """
    if not isinstance(asyncio.get_running_loop(), VirtualClockLoop):
        raise RuntimeError("time passes by itself here: use testing.virtual_time")  # noqa: TRY004
    await asyncio.sleep(seconds)


async def settle() -> None:
    """Wait until everything that was sent has arrived and been handled.

    Under `virtual_time` this is exact; on other loops it gives everybody a hundred turns.
    """
    if isinstance(asyncio.get_running_loop(), VirtualClockLoop):
        await asyncio.sleep(1e-6)
    else:
        for _ in range(100):
            await asyncio.sleep(0)


class Network:
    """A server and the way to it. Leaving the context closes both ends of everything.

    Args:
        server: The server under test, as the application made it.
        url: The path and query that devices connect to.
    """

    def __init__(self, server: WseServer[Any], url: str = "ws://test/") -> None:
        self.server = server
        self.devices: list[Device] = []
        """Every device, in the order in which they were made."""
        self._url = url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for device in self.devices:
            await device.client.close()
        await settle()
        await self.server.close()

    def device(
        self,
        *,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
        remote_addr: str | None = "127.0.0.1",
        **options: Any,
    ) -> Device:
        """A device that is not connected yet.

        Args:
            url: Another path and query than the network's.
            headers: Of its HTTP upgrade.
            remote_addr: Its address, as the server sees it.
            options: Of its `WseClient`.
        """
        dialer = MemoryDialer(self.server.acceptor, remote_addr)
        client = WseClient(url or self._url, headers=headers, dial=dialer, **options)
        device = Device(client, dialer)
        self.devices.append(device)
        return device

    async def connect(self, identity: Any = None, meta: Any = None, **options: Any) -> Device:
        """A device that is connected and welcomed; `options` as for `device`.

        Raises:
            ConnectError: as `WseClient.connect` does.
        """
        device = self.device(**options)
        await device.connect(identity, meta)
        return device


class Device:
    """A `WseClient` and what it has heard."""

    def __init__(self, client: WseClient, dialer: MemoryDialer) -> None:
        self.client = client
        """The client itself: register procedures, listen to channels and events."""
        self.welcome: Any = None
        """Payload of the last welcome."""
        self.closed: tuple[int, str] | None = None
        """Code and reason of the last end of its connection; None while it is connected."""
        self.received: deque[tuple[str, Any]] = deque()
        """Messages that no handler of the client took and `next` has not returned yet."""
        self._dialer = dialer
        self._changed: asyncio.Event = asyncio.Event()
        client.when.ready(self._on_ready)
        client.when.closed(self._on_closed)
        client.when.ignored(self._on_message)

    async def connect(self, identity: Any = None, meta: Any = None) -> Any:
        """`WseClient.connect`."""
        return await self.client.connect(identity, meta)

    def send(self, type: str, payload: Any = None) -> None:
        """`WseClient.send`."""
        self.client.send(type, payload)

    async def call(self, name: str, payload: Any = None, *, timeout: float | None = None) -> Any:
        """`WseClient.call`."""
        return await self.client.call(name, payload, timeout=timeout)

    async def close(self) -> None:
        """`WseClient.close`."""
        await self.client.close()

    async def next(self, type: str, *, timeout: float = 5.0) -> Any:
        """The payload of the next message of this type; others stay in `received`.

        Raises:
            TimeoutError: none came within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for message in self.received:
                        if message[0] == type:
                            self.received.remove(message)
                            return message[1]
                    await self._change()
        except TimeoutError:
            others = [type for type, _ in self.received]
            raise TimeoutError(f"no {type!r} within {timeout} s, only {others}") from None

    async def wait_closed(self, *, timeout: float = 5.0) -> tuple[int, str]:
        """Code and reason of the end of its connection.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while self.closed is None:
                await self._change()
        return self.closed

    def tear(self) -> None:
        """Break its connection: both ends see 1006, and what was under way is lost."""
        self._end.tear()

    def stall(self) -> None:
        """Stop reading, as a device does that hangs."""
        self._end.stall()

    def resume(self) -> None:
        """Read again."""
        self._end.resume()

    def unplug(self) -> None:
        """Break its connection, and let none be opened until `plug_in`."""
        self._dialer.reachable = False
        if self._dialer.last is not None:
            self.tear()

    def plug_in(self) -> None:
        """Let connections be opened again."""
        self._dialer.reachable = True

    @property
    def _end(self) -> MemoryTransport:
        if self._dialer.last is None:
            raise RuntimeError("the device was never connected")
        return self._dialer.last

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _on_ready(self, welcome: Any) -> None:
        self.welcome = welcome
        self.closed = None
        self._changed.set()

    def _on_closed(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self._changed.set()

    def _on_message(self, type: str, payload: Any) -> None:
        self.received.append((type, payload))
        self._changed.set()
