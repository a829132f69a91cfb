"""A chat on a port of its own: `python plain.py`, then `wse connect ws://127.0.0.1:4200 ...`."""

from __future__ import annotations

from wse import Attempt, Decision, WseConnection, WseServer

USERS = {"key-of-alice": "alice", "key-of-bob": "bob"}


def identify(attempt: Attempt) -> Decision:
    """Say who a key belongs to."""
    return attempt.accept(USERS.get(attempt.identity), {"people": sorted(server.clients)})


server = WseServer(identify, conn_per_user=3)


@server.channel.on("say")
def say(conn: WseConnection, text: str) -> None:
    """To everybody else."""
    server.broadcast("said", {"who": conn.cid, "text": text}, but=conn)


@server.register("people")
def people(_: WseConnection, __: None) -> list[str]:
    """Who is here."""
    return sorted(server.clients)


if __name__ == "__main__":
    server.run(port=4200)
