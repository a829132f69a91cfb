"""Text for a terminal, whatever it can show and whoever wrote the text."""

from __future__ import annotations

import codecs
import os
import re
import signal
import ssl
import sys
from typing import Any

import msgspec
from rich.console import Console

__all__ = ["Terminal", "fall_back_to_ascii", "os_error", "parsed", "printable", "shown"]

_IN_ASCII = {"→": "->", "←": "<-", "•": "*", "·": "-", "…": "..."}


class Terminal(Console):
    """Prints text as it stands: brackets are no markup, colons no emoji."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Nobody reads any more (`wse ... | head`): leave in order, as after SIGTERM."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGTERM)


def fall_back_to_ascii() -> None:
    """Print plain signs where the encoding of the output has no others."""
    codecs.register_error("wse.in-ascii", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="wse.in-ascii")  # type: ignore[union-attr]


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(c, "?") for c in text), error.end


def printable(text: str) -> str:
    """Text of a peer's, without what would steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(value: Any) -> str:
    """A payload as JSON that a terminal can show."""
    return printable(msgspec.json.encode(value).decode())


def parsed(text: str) -> Any:
    """A payload as it was typed.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f'no JSON (text wants quotes: "..."): {printable(text)}') from error


def os_error(error: OSError) -> str:
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
