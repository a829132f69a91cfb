"""The opening handshake of a server (RFC 6455 section 4.2): an express lane beside the reference.

What ordinary clients send takes a sixth of the time here. Every other request goes to `websockets`,
which checks, refuses and answers as the RFC wants.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS
from websockets.utils import accept_key

from .base import Fields

__all__ = ["Request", "accepted", "read_request"]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_head = re.compile(
    rb"GET ([!-~]+) HTTP/1\.1\r\n((?:" + _TOKEN + rb":[ -~]*\r\n)+)\r\n",
)
_key = re.compile(r"[A-Za-z0-9+/]{22}==")
_subprotocols = re.compile(rf"{_TOKEN.decode()}(?:, ?{_TOKEN.decode()})*")
_CONNECTION = ("upgrade", "keep-alive, upgrade")
_BODY = ("content-length", "transfer-encoding")


class Request(NamedTuple):
    """A request for a WebSocket that nothing is wrong with, and that asks for nothing unusual."""

    target: str
    """Path and query."""
    fields: Fields
    key: str
    subprotocols: list[str]
    """Those that are offered, in order."""


def read_request(head: bytes, *, compression: bool) -> Request | None:
    """A request, up to and with its empty line; None when the reference has to decide about it.

    Args:
        head: The bytes.
        compression: Whether extensions are agreed to at all (RFC 6455 section 9.1).
    """
    found = _head.fullmatch(head) if len(head) <= MAX_LINE_LENGTH else None
    if found is None:
        return None
    values: dict[str, str] = {}
    lines = found[2].decode().split("\r\n")
    for line in lines[:-1]:
        name, _, value = line.partition(":")
        values[name.lower()] = value.strip(" ")
    if len(values) != len(lines) - 1 or len(values) > MAX_NUM_HEADERS:
        return None
    get = values.get
    key, offered = get("sec-websocket-key", ""), get("sec-websocket-protocol")
    if (
        "host" not in values
        or get("upgrade", "").lower() != "websocket"
        or get("connection", "").lower() not in _CONNECTION
        or get("sec-websocket-version") != "13"
        or not _key.fullmatch(key)
        or any(name in values for name in _BODY)
        or (compression and "sec-websocket-extensions" in values)
    ):
        return None
    if offered is None:
        subprotocols = []
    elif _subprotocols.fullmatch(offered):
        subprotocols = offered.replace(" ", "").split(",")
    else:
        return None
    return Request(found[1].decode(), Fields(values), key, subprotocols)


def accepted(key: str, subprotocol: str | None) -> bytes:
    """The answer to such a request. A date is for answers that may be kept (RFC 9110 6.6.1)."""
    chosen = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n"
        f"{chosen}\r\n"
    ).encode()
