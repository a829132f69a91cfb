"""A client in the terminal: `wse connect`, line by line."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from ..client import WseClient
from ..codes import Status
from ..errors import ConnectError, ConnectionFailed, NotAuthorized, SolverMissing, WseError
from ..protocol import RESERVED_PREFIX, WseJSON
from .terminal import os_error, parsed, printable, shown

__all__ = ["TYPED", "Lines", "Talk", "connect_error"]

TYPED = """\
  send TYPE [JSON]     send a message
  call NAME [JSON]     call a procedure of the server and show its result
  answer NAME [JSON]   answer the server's calls of NAME with this, from now on
  help                 show these lines
  quit                 leave, as the end of input does"""


def connect_error(error: ConnectError) -> str:
    """Why there is no connection, and what to do about it."""
    match error:
        case NotAuthorized():
            return f"the server refused this identity ({error.code})"
        case SolverMissing():
            return "the server asks a challenge: give your key with --key"
        case ConnectionFailed(__cause__=TimeoutError() | ssl.SSLCertVerificationError()):
            pass
        case ConnectionFailed(__cause__=OSError() as cause):
            return f"cannot connect: {os_error(cause)}"
        case ConnectionFailed(details={"code": code, "reason": reason}):
            return f"closed before the welcome: {code} {printable(reason)}".rstrip()
    return f"cannot connect: {error.message.removeprefix('cannot connect: ') or error.code}"


def _in_short(error: Exception) -> str:
    if isinstance(error, ConnectError):
        return connect_error(error)
    if isinstance(error, WseError):
        details = f" {shown(error.details)}" if error.details else ""
        return f"{printable(error.code)}{details}"
    return str(error)


class _Overhearing(WseJSON):
    """The classic protocol, which tells of the server's calls."""

    def __init__(self, called: Callable[[str, str], None]) -> None:
        super().__init__()
        self._called = called

    def unpack(self, data: bytes) -> tuple[str, msgspec.Raw, Any]:
        type, payload, stamp = super().unpack(data)
        if isinstance(stamp, str) and not type.startswith(RESERVED_PREFIX):
            self._called(type, bytes(payload).decode(errors="replace"))
        return type, payload, stamp


class Lines:
    """Lines of a file, read by a thread that never keeps the program from ending.

    Args:
        fd: The file's descriptor.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._room = threading.Semaphore(256)
        threading.Thread(target=self._read, daemon=True).start()

    async def next(self) -> str | None:
        """The next line; None at the end."""
        line = await self._lines.get()
        self._room.release()
        return line

    def end(self) -> None:
        """No line that comes matters any more."""
        self._lines.put_nowait(None)

    def _read(self) -> None:
        rest = b""
        with suppress(OSError):
            while data := os.read(self._fd, 65536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._deliver(line.decode(errors="replace"))
        if rest:
            self._deliver(rest.decode(errors="replace"))
        self._deliver(None)

    def _deliver(self, line: str | None) -> None:
        self._room.acquire()
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)


class Talk:
    """A client, the lines that are typed, and all that happens, printed.

    Args:
        console: Where to.
        url: The server's.
        interactive: Whether a person types the lines.
        options: Of the client.
    """

    def __init__(self, console: Console, url: str, *, interactive: bool, **options: Any) -> None:
        self.client = WseClient(url, protocols=[_Overhearing(self._called)], **options)
        self._console = console
        self._interactive = interactive
        self._calls: set[asyncio.Task[None]] = set()
        self._failed = False
        when = self.client.when
        when.updated(lambda status: self._print("·", status, "dim"))
        when.ready(lambda welcome: self._print("·", f"welcome {shown(welcome)}", "dim"))
        when.ignored(self._ignored)
        when.closed(
            lambda code, reason: self._print("·", f"closed {code} {printable(reason)}", "dim")
        )
        when.error(lambda error: self._print("!", _in_short(error), "red"))

    async def run(self, identity: Any, meta: Any) -> bool:
        """Connect, and obey the lines until they end.

        Returns:
            Whether all went well: the server did not end it, and no line from a pipe failed.

        Raises:
            ConnectError: there is no connection.
        """
        try:
            async with self.client:
                await self.client.connect(identity, meta)
                if self._interactive:
                    self._print("·", "type help for what you can say", "dim")
                lines = Lines(0)
                gone = asyncio.create_task(self.client.wait_closed())
                gone.add_done_callback(lambda _: lines.end())
                while self.client.status is not Status.OFFLINE:
                    line = await lines.next()
                    if line is None or line.strip() == "quit":
                        break
                    await self._obey(line)
                lost = self.client.status is Status.OFFLINE
                for call in self._calls:
                    call.cancel()
        finally:
            await self.client.close()  # again: a signal may have cut the first short
        return not lost and (self._interactive or not self._failed)

    async def _obey(self, line: str) -> None:
        command, name, text, *_ = *line.split(maxsplit=2), "", "", ""
        match command:
            case "":
                pass
            case "help":
                self._console.print(TYPED, soft_wrap=True)
            case "send" | "call" | "answer" if name:
                try:
                    await self._do(command, name, parsed(text) if text else None)
                except (ValueError, WseError) as error:
                    self._fail(_in_short(error))
            case "send" | "call" | "answer":
                self._fail(f"{command} what? (try help)")
            case _:
                self._fail(f"no such command: {printable(command)} (try help)")

    async def _do(self, command: str, name: str, payload: Any) -> None:
        if command == "send":
            self.client.send(name, payload)
        elif command == "answer":
            self.client.unregister(name)
            self.client.register(name, lambda _: payload)
        elif self._interactive:
            call = asyncio.create_task(self._call(name, payload))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        else:
            await self._call(name, payload)

    async def _call(self, name: str, payload: Any) -> None:
        try:
            result = await self.client.call(name, payload)
        except (ValueError, WseError) as error:
            self._fail(f"{printable(name)}: {_in_short(error)}")
        else:
            self._print("←", f"{printable(name)} = {shown(result)}", "green")

    def _ignored(self, type: str, payload: Any) -> None:
        self._heard(f"{printable(type)} {shown(payload)}")

    def _called(self, name: str, payload: str) -> None:
        self._heard(f"call {printable(name)} {printable(payload)}")

    def _heard(self, text: str) -> None:
        self._print("←", text, "cyan")

    def _fail(self, text: str) -> None:
        self._failed = True
        self._print("!", text, "red")

    def _print(self, sign: str, text: str, style: str) -> None:
        self._console.print(Text(f"{sign} {text}".rstrip(), style), soft_wrap=True)
