"""What the load says to a server and hears from it: frames, and the dialects of the peers."""

from __future__ import annotations

import json
import struct
from typing import Any

__all__ = ["DIALECTS", "Dialect", "SocketIO", "WseArray", "frame", "masked", "payload_of"]

_KEY = b"\x37\xfa\x21\x3d"


def masked(text: str) -> bytes:
    """A text frame as a client sends it (RFC 6455 section 5.2)."""
    data = text.encode()
    size = len(data)
    head = bytes([0x81, 0x80 | size]) if size < 126 else struct.pack("!BBH", 0x81, 0xFE, size)
    key = int.from_bytes((_KEY * (size // 4 + 1))[:size], "big")
    return head + _KEY + (int.from_bytes(data, "big") ^ key).to_bytes(size, "big")


def frame(data: bytes) -> tuple[bytes, int] | None:
    """The first frame of a server: its payload and its whole size; None while some is missing."""
    if len(data) < 2:
        return None
    size, start = data[1], 2
    if size == 126:
        if len(data) < 4:
            return None
        size, start = int.from_bytes(data[2:4], "big"), 4
    if len(data) < start + size:
        return None
    if data[0] != 0x81:
        raise ValueError(f"no text frame: {data[: start + 40]!r}")
    return data[start : start + size], start + size


def payload_of(dialect: Dialect, size: int) -> dict[str, Any]:
    """A payload that makes a call of so many bytes."""
    bare: dict[str, Any] = {"number": 1, "text": ""}
    bare["text"] = "x" * (size - len(dialect.call("echo", bare)))
    return bare


class Dialect:
    """How one kind of server is spoken to."""

    path = "/"
    opening: tuple[tuple[str | None, bytes], ...]
    """After the upgrade: what is said, with `{identity}` in it, and how the answer begins."""

    def call(self, type: str, payload: Any) -> str:
        """A message that is answered."""
        raise NotImplementedError

    def event(self, type: str, payload: Any) -> str:
        """One that is not."""
        raise NotImplementedError

    def result(self, text: bytes) -> Any:
        """The payload of an answer."""
        raise NotImplementedError

    def news(self, text: bytes) -> Any:
        """The payload of what a server sends by itself."""
        raise NotImplementedError

    def upgrade(self, port: int) -> bytes:
        """The request that opens the WebSocket."""
        lines = (
            f"GET {self.path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: wse-default-json",
            "\r\n",
        )
        return "\r\n".join(lines).encode()


class WseArray(Dialect):
    """`[type, payload, stamp]`, as docs/wire.md has it. The peers without messages speak it too."""

    opening = (('["~wse:hi",{{"identity":"{identity}"}},null]', b'["~wse:'),)

    def call(self, type: str, payload: Any) -> str:
        return json.dumps([type, payload, "1234567"], separators=(",", ":"))

    def event(self, type: str, payload: Any) -> str:
        return json.dumps([type, payload, None], separators=(",", ":"))

    def result(self, text: bytes) -> Any:
        return json.loads(text)[1]

    news = result


class SocketIO(Dialect):
    """Socket.IO 5 in Engine.IO 4, over WebSocket alone; a call is an event with an ack."""

    path = "/socket.io/?EIO=4&transport=websocket"
    opening = ((None, b"0{"), ('40{{"identity":"{identity}"}}', b"40{"))

    def call(self, type: str, payload: Any) -> str:
        return "427" + json.dumps([type, payload], separators=(",", ":"))

    def event(self, type: str, payload: Any) -> str:
        return "42" + json.dumps([type, payload], separators=(",", ":"))

    def result(self, text: bytes) -> Any:
        if not text.startswith(b"437["):
            raise ValueError(f"no ack: {text[:40]!r}")
        return json.loads(text[3:])[0]

    def news(self, text: bytes) -> Any:
        return json.loads(text[2:])[1]


DIALECTS: dict[str, Dialect] = {"wse": WseArray(), "socket.io": SocketIO()}
