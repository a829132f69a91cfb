"""The commands: `wse demo`, `wse serve`, `wse connect`."""

from __future__ import annotations

import asyncio
import codecs
import importlib
import ipaddress
import logging
import os
import re
import signal
import ssl
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.text import Text

from . import runner
from .auth import hmac_solver
from .client import WseClient
from .codes import Status
from .demo import DemoFailed, play, printable, shown
from .errors import ConnectError, ConnectionFailed, NotAuthorized, SolverMissing, WseError
from .protocol import RESERVED_PREFIX, WseJSON
from .server import WseServer

__all__ = ["main"]

T = TypeVar("T")

logger = logging.getLogger("wse.cli")

PORT = click.IntRange(0, 65535)
_IN_ASCII = {"→": "->", "←": "<-", "•": "*", "·": "-", "…": "..."}


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What a terminal without Unicode shows instead."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(c, "?") for c in text), error.end


codecs.register_error("wse.in-ascii", _in_ascii)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wse")
def main() -> None:
    """Users and their devices over WebSocket."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="wse.in-ascii")  # type: ignore[union-attr]


def _run(work: Coroutine[Any, Any, T]) -> T | None:
    """Run until the work ends, or until SIGINT or SIGTERM cancels it: then None."""

    async def run() -> T | None:
        signalled = asyncio.create_task(runner.signalled())
        working = asyncio.create_task(work)
        await asyncio.wait((working, signalled), return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if working.done():
            return working.result()
        working.cancel()
        await asyncio.wait((working,))
        return None if working.cancelled() else working.result()

    with suppress(KeyboardInterrupt):
        return runner.run(run())
    return None


class _Terminal(Console):
    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Nobody reads any more (`wse ... | head`): leave in order, as after SIGTERM."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGTERM)


# -- demo --------------------------------------------------------------------------------------


@main.command()
@click.option("--port", type=PORT, default=4200, show_default=True, help="A free one if taken.")
@click.option("--once", is_flag=True, envvar="ONCE", show_envvar=True, help="End after the story.")
def demo(port: int, once: bool) -> None:
    """Tell the story of a server and its users, then stay up to talk to.

    Ctrl-C ends it.
    """
    try:
        _run(play(_Terminal(), port=port, once=once))
    except (DemoFailed, WseError) as error:
        raise click.ClickException(f"The demo failed: {error}") from error
    except OSError as error:
        raise click.ClickException(f"cannot listen on port {port}: {_os_error(error)}") from error


# -- serve -------------------------------------------------------------------------------------


@main.command()
@click.argument("target", metavar="MODULE[:SERVER]")
@click.option("--host", help="The address to bind.  [default: 127.0.0.1]")
@click.option("--port", type=PORT, help="0 takes a free one.  [default: 4200]")
@click.option("--unix", metavar="PATH", help="A Unix socket, instead of host and port.")
@click.option("--tls-cert", type=click.Path(), help="Serve TLS: the certificate chain, as PEM.")
@click.option("--tls-key", type=click.Path(), help="Its private key, unless it is in the chain.")
@click.option("--compression", is_flag=True, help="Agree to permessage-deflate.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
)
def serve(
    *,
    target: str,
    host: str | None,
    port: int | None,
    unix: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    compression: bool,
    log_level: str,
) -> None:
    """Run the server that a module makes, until SIGINT or SIGTERM.

    MODULE is imported from the current directory or the Python path; SERVER is its attribute, with
    dots if need be, and "server" unless said.
    """
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if unix is not None and (host is not None or port is not None):
        raise click.UsageError("--unix stands instead of --host and --port")
    where: dict[str, Any] = {
        "host": "127.0.0.1" if host is None else host,
        "port": 4200 if port is None else port,
        "unix": unix,
        "ssl": _tls(tls_cert, tls_key),
        "compression": compression,
    }
    runner.run_until_signal(_listening(_load(target), where))


@asynccontextmanager
async def _listening(server: WseServer[Any], where: dict[str, Any]) -> AsyncIterator[None]:
    host, unix, secure = where["host"], where["unix"], where["ssl"] is not None
    async with AsyncExitStack() as stack:
        try:
            listener = await stack.enter_async_context(server.listen(**where))
        except OSError as error:
            place = unix or f"{host}:{where['port']}"
            raise click.ClickException(f"cannot listen on {place}: {_os_error(error)}") from error
        if unix is not None:
            click.echo(f"Listening on {unix}")
        else:
            name = f"[{host}]" if ":" in host else host
            click.echo(f"Listening on {'wss' if secure else 'ws'}://{name}:{listener.port}")
            if not secure and not _is_loopback(host):
                logger.warning(
                    "reachable from other machines without TLS: "
                    "whoever is on the way can read and change everything"
                )
        yield


def _load(target: str) -> WseServer[Any]:
    """The server that `module:attribute` names."""
    module_name, _, path = target.partition(":")
    if not module_name or module_name.startswith("."):
        raise click.UsageError("name the module as Python does: package.module:server")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        logger.debug("importing %s failed", module_name, exc_info=error)
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise click.ClickException(f"no module named {missing!r}") from error
        raise click.ClickException(
            f"importing {module_name!r} failed: {_exception(error)}"
        ) from error
    name = module_name
    for part in (path or "server").split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise click.ClickException(f"{name!r} has no attribute {part!r}") from error
        name = f"{name}.{part}"
    if not isinstance(found, WseServer):
        raise click.ClickException(f"{name!r} is no WseServer, its type is {type(found).__name__}")
    return found


def _exception(error: Exception) -> str:
    """An exception in one line, with the place that raised it."""
    if isinstance(error, SyntaxError):
        file, line, message = error.filename, error.lineno, error.msg
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        file, line, message = frame.filename, frame.lineno, str(error)
    return f"{type(error).__name__}: {' '.join(message.split())} ({file}, line {line})"


def _tls(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    if cert is None:
        if key is not None:
            raise click.UsageError("--tls-key wants --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError as error:
        what = error.reason or "it is no PEM file with a certificate and its key"
        raise click.ClickException(f"cannot use the certificate {cert!r}: {what}") from error
    except OSError as error:
        raise click.ClickException(
            f"cannot read the certificate {cert!r} or its key: {_os_error(error)}"
        ) from error
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _os_error(error: OSError) -> str:
    """What the system says, without the words that asyncio puts around it."""
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    number = error.errno
    if number is None:
        found = re.search(r"\[Errno (\d+)\]", str(error))
        number = int(found[1]) if found else 0
    if number > 0:
        return os.strerror(number)
    return str(error.strerror or error) or type(error).__name__


# -- connect -----------------------------------------------------------------------------------

TYPED = """\
  send TYPE [JSON]     send a message
  call NAME [JSON]     call a procedure of the server and show its result
  answer NAME [JSON]   answer the server's calls of NAME with this, from now on
  help                 show these lines
  quit                 leave, as the end of input does"""


_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*)")


def _json(_: click.Context, __: click.Parameter, value: str) -> Any:
    try:
        return _parsed(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _headers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for value in values:
        header = _HEADER.fullmatch(value)
        if header is None:
            raise click.BadParameter(f"no 'Name: value': {value!r}")
        headers[header[1]] = header[2]
    return headers


@main.command(epilog=f"\b\nTyped lines:\n{TYPED}")
@click.argument("url")
@click.option(
    "--identity", required=True, envvar="WSE_IDENTITY", show_envvar=True, help="Who you are: text."
)
@click.option("--json-identity", is_flag=True, help="The identity is JSON.")
@click.option(
    "--meta",
    metavar="JSON",
    default="{}",
    callback=_json,
    help="About the device.",
    show_default=True,
)
@click.option("--key", envvar="WSE_KEY", show_envvar=True, help="To answer an HMAC challenge with.")
@click.option("--reconnect", is_flag=True, help="Come back when the connection is lost.")
@click.option(
    "--header",
    "headers",
    metavar="'NAME: VALUE'",
    multiple=True,
    callback=_headers,
    help="Of the HTTP upgrade; may be repeated.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to connect, and for each call.",
)
@click.option(
    "--unix", metavar="PATH", help="A Unix socket to connect to, whatever the URL's host."
)
def connect(
    *,
    url: str,
    identity: Any,
    json_identity: bool,
    meta: Any,
    key: str | None,
    reconnect: bool,
    headers: dict[str, str],
    timeout: float,
    unix: str | None,
) -> None:
    """Talk to a server of Python or JavaScript, line by line.

    Prints what arrives. A payload is JSON, and null when there is none; text wants quotes.

    Lines from a pipe are obeyed one after the other, each call once the one before it is answered;
    then the program ends. Its status is 1 when it cannot connect, when it is refused or sent away,
    and when a line from a pipe fails.
    """
    if json_identity:
        try:
            identity = _parsed(identity)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--identity") from error
    interactive = sys.stdin is not None and sys.stdin.isatty()
    try:
        talk = Talk(
            _Terminal(),
            url,
            interactive=interactive,
            timeout=timeout,
            reconnect=reconnect,
            headers=headers,
            unix=unix,
        )
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from error
    if key is not None:
        talk.client.challenge(partial(_solve, key))
    try:
        succeeded = _run(talk.run(identity, meta))
    except ConnectError as error:
        raise click.ClickException(_connect_error(error)) from error
    if succeeded is False:
        sys.exit(1)


def _parsed(text: str) -> Any:
    """A payload as it was typed.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f'no JSON (text wants quotes: "..."): {printable(text)}') from error


def _solve(key: str, quest: Any) -> str:
    if not isinstance(quest, dict) or not isinstance(quest.get("nonce"), str):
        raise click.ClickException(f"this challenge is not one for --key: {shown(quest)}")
    return hmac_solver(key)(quest)


def _connect_error(error: ConnectError) -> str:
    match error:
        case NotAuthorized():
            return f"the server refused this identity ({error.code})"
        case SolverMissing():
            return "the server asks a challenge: give your key with --key"
        case ConnectionFailed(__cause__=TimeoutError() | ssl.SSLCertVerificationError()):
            pass
        case ConnectionFailed(__cause__=OSError() as cause):
            return f"cannot connect: {_os_error(cause)}"
        case ConnectionFailed(details={"code": code, "reason": reason}):
            return f"closed before the welcome: {code} {printable(reason)}".rstrip()
    return f"cannot connect: {error.message.removeprefix('cannot connect: ') or error.code}"


def _in_short(error: Exception) -> str:
    if isinstance(error, ConnectError):
        return _connect_error(error)
    if isinstance(error, WseError):
        details = f" {shown(error.details)}" if error.details else ""
        return f"{printable(error.code)}{details}"
    return str(error)


class _Overhearing(WseJSON):
    """The classic protocol, which tells of the server's calls."""

    def __init__(self, called: Any) -> None:
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
        self.client = WseClient(url, protocol=_Overhearing(self._called), **options)
        self._console = console
        self._interactive = interactive
        self._calls: set[asyncio.Task[None]] = set()
        self._lines: Lines | None = None
        self._failed = False
        when = self.client.when
        when.updated(self._updated)
        when.ready(lambda welcome: self._print("·", f"welcome {shown(welcome)}", "dim"))
        when.ignored(self._ignored)
        when.closed(
            lambda code, reason: self._print("·", f"closed {code} {printable(reason)}", "dim")
        )
        when.error(lambda error: self._print("!", _in_short(error), "red"))

    async def run(self, identity: Any, meta: Any, fd: int = 0) -> bool:
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
                self._lines = Lines(fd)
                while self.client.status is not Status.OFFLINE:
                    line = await self._lines.next()
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
                    await self._do(command, name, _parsed(text) if text else None)
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

    def _updated(self, status: Status) -> None:
        self._print("·", status, "dim")
        if status is Status.OFFLINE:
            asyncio.get_running_loop().call_soon(self._end_if_offline)

    def _end_if_offline(self) -> None:
        """Offline for good; a client that comes back is reconnecting by now."""
        if self.client.status is Status.OFFLINE and self._lines is not None:
            self._lines.end()

    def _fail(self, text: str) -> None:
        self._failed = True
        self._print("!", text, "red")

    def _print(self, sign: str, text: str, style: str) -> None:
        self._console.print(Text(f"{sign} {text}".rstrip(), style), soft_wrap=True)
