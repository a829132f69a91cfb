"""A floor for deliveries: one frame, and a bare loop of os.write over all sockets."""

from __future__ import annotations

import json
import os
import select
import socket

from .common import NEWS, announce, bound

UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
WELCOME = b'["~wse:welcome",null,null]'


def framed(text: bytes) -> bytes:
    """A short text frame."""
    return b"\x81%c" % len(text) + text


def unmasked(data: bytes) -> bytes:
    """The text of one short frame of a client."""
    return bytes(byte ^ data[2 + number % 4] for number, byte in enumerate(data[6:]))


def main() -> None:
    """Serve whoever comes, and write when one of them asks."""
    listening = bound()
    announce(listening.getsockname()[1])
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    socks: dict[int, socket.socket] = {}
    news = framed(json.dumps(["news", NEWS, None], separators=(",", ":")).encode())
    while True:
        for fd, _ in poll.poll():
            if fd == listening.fileno():
                sock, _ = listening.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                socks[sock.fileno()] = sock
                poll.register(sock, select.EPOLLIN)
                continue
            data = socks[fd].recv(4096)
            if data.startswith(b"GET "):
                os.write(fd, UPGRADED)
            elif b"~wse:hi" in (text := unmasked(data)):
                os.write(fd, framed(WELCOME))
            else:
                for _number in range(json.loads(text)[1]["count"]):
                    for one in socks:
                        os.write(one, news)


if __name__ == "__main__":
    main()
