"""Listens, while any test runs, to what the library sends and logs, for what it never may.

All sockets are opened in `transports.tcp`, and asyncio and uvloop hand each of them to
`connection_made` of a class there: `_Upgrade` at the server, `_Opening` at the client. Both get a
`Tap` in its stead, so whatever is written, HTTP or frames, before TLS, goes through it. Frames that
are masked or compressed are read there as the peer would read them. What is carried in memory goes
through two methods of `MemoryTransport`. A test holds that there is no other way out.

What is logged goes through a handler of the root logger. The cids of nearly all tests are those of
Alice and Bob.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support import SECRET, TOKEN
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.protocol import Protocol, Side, State

import wse
from wse import Limits
from wse.transports.memory import MemoryTransport
from wse.transports.stream import StreamTransport
from wse.transports.tcp import _Opening, _Upgrade

__all__ = ["TESTS", "Tap", "chain", "heard", "overhearing", "start", "start_log", "told"]

TESTS = Path(__file__).parent
SIGNS = [
    sign.encode()
    for sign in (
        SECRET,
        "Traceback (most recent call last)",
        'File "',
        'File \\"',  # within JSON
        str(Path(wse.__file__).parent),
        str(TESTS),
        sysconfig.get_path("purelib"),
        sysconfig.get_path("stdlib"),
    )
]
_AROUND = 60
_mute = logging.getLogger("wiretap")
_mute.addFilter(lambda _: False)
_VARIABLE = "WSE_WIRETAP"
"""Names the file that leaks are noted in: programs in processes of their own inherit it."""


def _note(leak: str) -> None:
    test = os.environ.get("PYTEST_CURRENT_TEST", "no test")
    with Path(os.environ[_VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(f"{test}: {leak}\n")


def heard() -> list[str]:
    """The leaks since the last time: in which test, and the bytes around."""
    file = Path(os.environ[_VARIABLE])
    if not file.exists():
        return []
    leaks = file.read_text(encoding="utf-8").splitlines()
    file.unlink()
    return leaks


@contextlib.contextmanager
def overhearing() -> Iterator[list[str]]:
    """Leak on purpose; filled with the leaks at the end, which fail nothing then."""
    leaks: list[str] = []
    yield leaks
    leaks += heard()


def _look(data: bytes, where: str) -> None:
    for sign in SIGNS:
        start = data.find(sign)
        if start >= 0:
            around = data[max(0, start - _AROUND) : start + len(sign) + _AROUND]
            _note(f"{where} sent {around!r}")
            return


class Tap:
    """A socket's asyncio transport that looks at what is written; the rest is the transport's."""

    def __init__(self, stream: asyncio.Transport, who: str) -> None:
        self._stream = stream
        self._who = who
        self._peer: Protocol | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def upgraded(self, side: Side, extensions: list[Extension]) -> None:
        """From now on it writes frames; read those that are masked or compressed."""
        if side is Side.CLIENT or extensions:
            other = Side.SERVER if side is Side.CLIENT else Side.CLIENT
            self._peer = Protocol(other, state=State.OPEN, max_size=None, logger=_mute)
            self._peer.extensions = [_mirrored(extension) for extension in extensions]

    def write(self, data: bytes) -> None:
        if self._peer is None:
            _look(data, self._who)
        else:
            self._peer.receive_data(data)
            for frame in self._peer.events_received():
                assert isinstance(frame, Frame)
                _look(bytes(frame.data), self._who)
            if self._peer.parser_exc is not None:
                _note(f"{self._who} sent what cannot be read: {self._peer.parser_exc!r}")
        self._stream.write(data)

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))


def _mirrored(extension: Extension) -> Extension:
    """The other end of a compression."""
    assert isinstance(extension, PerMessageDeflate)
    return PerMessageDeflate(
        remote_no_context_takeover=extension.local_no_context_takeover,
        local_no_context_takeover=extension.remote_no_context_takeover,
        remote_max_window_bits=extension.local_max_window_bits,
        local_max_window_bits=extension.remote_max_window_bits,
    )


def start(file: Path | None = None) -> None:
    """Listen to this process, and to those that inherit its environment and run `sitecustomize`.

    Args:
        file: Where leaks are noted; what the environment says when None.
    """
    if file is not None:
        os.environ[_VARIABLE] = str(file)
    for owner, name, listening in (
        (_Upgrade, "connection_made", _connection_made(_Upgrade.connection_made, "a server")),
        (_Opening, "connection_made", _connection_made(_Opening.connection_made, "a client")),
        (StreamTransport, "__init__", _upgraded(StreamTransport.__init__)),
        (MemoryTransport, "write", _write(MemoryTransport.write)),
        (MemoryTransport, "close", _close(MemoryTransport.close)),
    ):
        setattr(owner, name, listening)


def _connection_made(original: Callable[..., None], who: str) -> Callable[..., None]:
    def connection_made(self: Any, transport: asyncio.Transport) -> None:
        original(self, Tap(transport, who))

    return connection_made


def _upgraded(original: Callable[..., None]) -> Callable[..., None]:
    def init(
        self: Any, stream: Any, side: Side, limits: Limits, extensions: list[Extension]
    ) -> None:
        tap = stream if isinstance(stream, Tap) else Tap(stream, f"a {side.name.lower()}")
        tap.upgraded(side, extensions)
        original(self, tap, side, limits, extensions)

    return init


def _write(original: Callable[..., None]) -> Callable[..., None]:
    def write(self: Any, frames: list[bytes]) -> None:
        for frame in frames:
            _look(frame, "an end in memory")
        original(self, frames)

    return write


def _close(original: Callable[..., None]) -> Callable[..., None]:
    def close(self: Any, code: int, reason: str) -> None:
        _look(reason.encode(), "an end in memory, as it closed,")
        original(self, code, reason)

    return close


def start_log() -> None:
    """Listen to what is logged in this process.

    Frameworks that set up logging anew take every handler off: call it again before each test.
    """
    logging.getLogger().addHandler(_log)
    logging.getLogger("wse").setLevel(logging.DEBUG)


class _Log(logging.Handler):
    """Looks at every record of the library, and at those of others that speak of it."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] in ("wse", "websockets", "asyncio"):
            private = next(filter(_private.search, told(record)), None)
            if private is not None:
                _note(f"{record.name} logged {private!r}")


_log = _Log()
_private = re.compile(rf"{TOKEN}|\b(alice|bob)\b", re.IGNORECASE)


def told(record: logging.LogRecord) -> Iterator[str]:
    """All text of a log record, but for what an exception of the application's says itself."""
    yield record.getMessage()
    yield repr(record.args)
    if record.stack_info:
        yield record.stack_info
    if record.exc_info and record.exc_info[1] is not None:
        for error in chain(record.exc_info[1]):
            yield from traceback.format_exception_only(error)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those it came from, but for those that a test raised itself."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or Path(frames[-1].filename).parent != TESTS:
        yield error
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from chain(before)
