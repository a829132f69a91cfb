"""wse by itself."""

from __future__ import annotations

import argparse
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

import msgspec
import uvloop

from wse import WseConnection, WseServer

from .common import NEWS, announce, collect, end_with_stdin, forever, run


class Note(msgspec.Struct):
    """The payload of a call, as a handler may name it."""

    number: int
    text: str


def plain(_: WseConnection, payload: Any) -> Any:
    """Answer with what came."""
    return payload


async def without_waiting(_: WseConnection, payload: Any) -> Any:
    """Do the same."""
    return payload


def typed(_: WseConnection, note: Note) -> Note:
    """Do the same."""
    return note


HANDLERS: dict[str, Callable[..., Any]] = {
    "plain": plain,
    "async": without_waiting,
    "typed": typed,
}


def make_server(handler: Callable[..., Any] = plain) -> WseServer[Any]:
    """The application that is measured."""
    server: WseServer[Any] = WseServer(lambda attempt: attempt.accept(attempt.identity))
    server.register("echo")(handler)
    server.register("collect")(lambda _conn, _payload: collect())

    @server.channel.on("cast")
    def cast(_: WseConnection, payload: dict[str, Any]) -> None:
        for _number in range(payload["count"]):
            server.broadcast("news", NEWS)

    @server.channel.on("tell")
    def tell(_: WseConnection, payload: dict[str, Any]) -> None:
        for cid in payload["to"]:
            for _number in range(payload["count"]):
                server.send(cid, "news", NEWS)

    return server


def certificate() -> ssl.SSLContext:
    """One for this machine, made now."""
    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


async def serve(server: WseServer[Any], tls: ssl.SSLContext | None) -> None:
    """Serve at a free port."""
    async with server.listen(port=0, ssl=tls) as listener:
        announce(listener.port)
        await forever()


class SharingLoop(uvloop.Loop):
    """A loop whose servers share their port with those of other processes."""

    def create_server(self, *args: Any, **options: Any) -> Any:
        """Listen with SO_REUSEPORT."""
        return super().create_server(*args, reuse_port=True, **options)


def serve_shared(server: WseServer[Any], processes: int) -> None:
    """Serve at one port with several processes, each on a core of its own."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    ours, theirs = os.pipe()
    for number in range(processes):
        if os.fork() == 0:
            os.sched_setaffinity(0, {number % (os.cpu_count() or 1)})
            loop = SharingLoop()
            loop.run_until_complete(_serve_one(server, port, theirs))
    for _ in range(processes):
        os.read(ours, 1)
    announce(port)
    for _ in range(processes):
        os.wait()


async def _serve_one(server: WseServer[Any], port: int, ready: int) -> None:
    async with server.listen(port=port):
        end_with_stdin()
        os.write(ready, b".")
        await forever()


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--handler", choices=HANDLERS, default="plain")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    server = make_server(HANDLERS[options.handler])
    if options.processes > 1:
        serve_shared(server, options.processes)
    else:
        run(serve(server, certificate() if options.tls else None))


if __name__ == "__main__":
    main()
