"""The public interface as an application uses it: read by two type checkers, never run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_type

import msgspec

from wse import (
    Attempt,
    Channel,
    Decision,
    Procedures,
    Protocol,
    Status,
    WseClient,
    WseConnection,
    WseError,
    WseIdentity,
    WseServer,
)


class AddArgs(msgspec.Struct):
    a: int
    b: int


@dataclass
class Cart:
    items: int = 0


async def identify(attempt: Attempt) -> Decision:
    answer: Any = await attempt.challenge({"nonce": "1"})
    if answer != 1:
        return attempt.refuse()
    return attempt.accept(7, {"message": "Welcome!"})


def identify_at_once(attempt: Attempt) -> Decision | None:
    return attempt.accept("alice") if attempt.query.get("token") else None


server = WseServer(identify, conn_per_user=2, state=Cart)
assert_type(server, WseServer[Cart])
plain = WseServer(identify_at_once)


@server.channel.on("hello")
def hello(conn: WseConnection[Cart], data: dict[str, int]) -> None:
    assert_type(conn.state, Cart)
    conn.send("welcome", {"got": data})


@server.channel.on("slow", ordered=True)
async def slow(conn: WseConnection[Cart], data: list[int]) -> None:
    await conn.call("ping", data, timeout=1.5)


@server.register("add")
async def add(conn: WseConnection[Cart], args: AddArgs) -> int:
    return args.a + args.b


@server.when.joined
def joined(client: WseIdentity[Cart], meta: Any) -> None:
    assert_type(client.conns, dict[str, WseConnection[Cart]])


@server.when.disconnected
async def disconnected(conn: WseConnection[Cart], code: int, reason: str) -> None:
    server.broadcast("gone", conn.cid, but=conn)


@server.when.error
def error(error: WseError, conn: WseConnection[Cart] | None) -> None:
    print(error.code, error.details)


server.when.joined.off(joined)
server.include(Channel(), Procedures())
server.send("alice", "hello", [1])
server.send(7, "hello")
assert_type(server.clients["alice"], WseIdentity[Cart])


class Lines(Protocol):
    name = "lines"

    def pack(self, type: str, payload: Any, stamp: Any) -> str:
        return f"{type} {payload} {stamp}"

    def unpack(self, data: bytes) -> tuple[str, Any, Any]:
        type, payload, stamp = data.decode().split()
        return type, payload, stamp


def protocols() -> Sequence[Protocol]:
    return [Lines()]


async def main() -> None:
    async with WseClient("ws://localhost:4200", timeout=30, reconnect=True) as client:

        @client.when.updated
        def updated(status: Status) -> None:
            print(status)

        @client.channel.on("welcome")
        def welcome(data: dict[str, Any]) -> None:
            print(data)

        @client.challenge
        async def solve(quest: dict[str, str]) -> str:
            return quest["nonce"]

        @client.register("ping")
        def ping(data: list[int]) -> str:
            return "pong"

        await client.connect(lambda: "fresh", {"app": "demo"})
        client.send("hello", {"m": 1})
        total: int = await client.call("add", {"a": 5, "b": 3})
        print(total)
    async with server.listen(port=0) as listener:
        assert_type(listener.port, int)
