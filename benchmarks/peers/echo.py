"""A floor: frames go back as they came, without JSON; picows delimits them, in C."""

from __future__ import annotations

import asyncio

import picows

from .common import announce, collect, forever, run


class Echo(picows.WSListener):  # type: ignore[misc]
    """One connection: what came in one turn of the loop goes back in one write."""

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Begin."""
        self._write = transport.underlying_transport.write
        self._replies: list[bytes] = []

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Keep the frame until the turn ends."""
        if frame.msg_type != picows.WSMsgType.TEXT:
            transport.disconnect()
            return
        text = frame.get_payload_as_bytes()
        if text.startswith(b'["collect"'):
            collect()
        size = len(text)
        head = b"\x81%c" % size if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")
        if not self._replies:
            asyncio.get_running_loop().call_soon(self._flush)
        self._replies += head, text

    def _flush(self) -> None:
        self._write(b"".join(self._replies))
        self._replies.clear()


async def main() -> None:
    """Serve at a free port."""
    server = await picows.ws_create_server(lambda _: Echo(), "127.0.0.1", 0, backlog=2048)
    announce(server.sockets[0].getsockname()[1])
    await forever()


if __name__ == "__main__":
    run(main())
